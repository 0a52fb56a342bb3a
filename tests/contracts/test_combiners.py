"""One contract for the combiners of all rooms: what is enough, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest

from ddnn.coding.combiner import CodingCombiner
from ddnn.coding.constructions import make_mds
from ddnn.core.plan import Plan
from ddnn.core.section import Arrays
from ddnn.machines.offload import Combiner
from ddnn.students.combiner import StudentCombiner
from tests.plan_builders import make_piece, make_plan
from tests.simulation.offload_site import INPUTS, CodedSite
from tests.simulation.students import FUSED, StudentSite
from tests.toy_room import Adder

NOW_S = 5.0


class Case(NamedTuple):
    """A combiner, its plan, and the true result of each piece."""

    combiner: Combiner
    plan: Plan
    results: dict[int, Arrays]


def make_coding() -> Case:
    site = CodedSite(make_mds(6, 2))
    x = np.random.default_rng(0).normal(size=INPUTS).astype(np.float32)
    results = {int(key.piece): shard({"x": x}) for key, shard in site.shards.items()}
    return Case(CodingCombiner(site.plan), site.plan, results)


def make_students() -> Case:
    site = StudentSite((3, 2, 2))
    features = np.random.default_rng(0).normal(size=FUSED).astype(np.float32)
    results = {k: student({"features": features}) for k, student in enumerate(site.students)}
    return Case(StudentCombiner(site.plan), site.plan, results)


def make_toy() -> Case:
    plan = make_plan({f"worker{i}": (i,) for i in range(3)}, make_piece({"x": (1,)}, {"z": (1,)}))
    return Case(Adder(plan), plan, {i: {"z": np.float32([7])} for i in range(3)})


@pytest.fixture(params=[make_coding, make_students, make_toy], ids=["coding", "students", "toy"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.param()


def list_subsets(case: Case) -> list[tuple[int, ...]]:
    pieces = range(len(case.plan.pieces))
    return [some for size in range(len(pieces) + 1) for some in combinations(pieces, size)]


def combine(case: Case, pieces: Sequence[int], *, last: bool):
    parts = {piece: case.results[piece] for piece in pieces}
    senders = {piece: f"worker{piece}" for piece in pieces}
    return case.combiner.combine(parts, senders, NOW_S, last=last)


def is_close(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_all_pieces_are_enough_and_more_are_never_fewer(case: Case) -> None:
    enough = {some: case.combiner.enough(frozenset(some)) for some in list_subsets(case)}
    assert enough[tuple(case.results)]
    assert not enough[()]
    for some, is_enough in enough.items():
        for piece in case.results if is_enough else ():
            assert case.combiner.enough({*some, piece})


def test_any_pieces_that_are_enough_give_the_same(case: Case) -> None:
    whole = combine(case, list(case.results), last=False)
    assert whole.missing == frozenset()
    for some in list_subsets(case):
        if case.combiner.enough(frozenset(some)):
            for last in (False, True):
                combined = combine(case, some, last=last)
                assert is_close(combined.outputs, whole.outputs)
                assert (combined.missing, combined.faulty, combined.wait) == (set(), set(), False)


def test_outputs_are_what_the_tail_takes(case: Case) -> None:
    outputs = combine(case, list(case.results), last=False).outputs
    if "tail" in case.plan.owned:
        for name, array in outputs.items():
            spec = case.plan.owned["tail"].inputs[name]
            assert (array.shape, array.dtype) == (spec.shape, spec.dtype)


def test_fewer_give_nothing_or_what_they_lack_is_named(case: Case) -> None:
    for some in list_subsets(case):
        if case.combiner.enough(frozenset(some)):
            continue
        combined = combine(case, some, last=True)
        if some and case.combiner.partial:
            assert combined.missing == case.results.keys() - set(some)
            assert all(np.isfinite(array).all() for array in combined.outputs.values())
        else:
            assert combined.outputs is None


def test_nobody_who_is_right_is_blamed(case: Case) -> None:
    results = {
        piece: {"first": arrays, "second": dict(arrays)} for piece, arrays in case.results.items()
    }
    assert case.combiner.inspect(results, NOW_S) == frozenset()
    assert not any(case.combiner.counts.values())


def test_any_spare_workers_may_vanish_and_no_more(case: Case) -> None:
    holdings = list(case.plan.placement.values())
    spare = case.combiner.count_spare(holdings)
    assert spare > 0

    def is_enough_without(lost: tuple[int, ...]) -> bool:
        left = [pieces for i, pieces in enumerate(holdings) if i not in lost]
        return case.combiner.enough(frozenset(piece for pieces in left for piece in pieces))

    workers = range(len(holdings))
    assert all(is_enough_without(lost) for lost in combinations(workers, spare))
    assert not all(is_enough_without(lost) for lost in combinations(workers, spare + 1))


def test_the_page_has_words_and_every_piece_a_group(case: Case) -> None:
    assert case.combiner.title
    assert case.combiner.description
    pieces = [piece for group in case.combiner.groups for piece in range(group.first, group.end)]
    assert pieces == list(range(len(case.plan.pieces)))
