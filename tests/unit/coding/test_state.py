"""What is published about a coded plan: its promise, its kinds of shards, and the spare workers."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.coding import Code
from ddnn.coding.detail import CodingDetail
from ddnn.coding.state import count_spare_workers, describe_plan, list_groups
from ddnn.protocol.messages import PieceGroup
from tests.simulation.offload_site import OffloadSite


@st.composite
def plans(draw: Any) -> tuple[int, list[tuple[int, bool]]]:
    """k, and of each worker how many shards it holds and whether it is live."""
    workers = draw(
        st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6).filter(
            lambda workers: any(held for held, _ in workers)
        )
    )
    return draw(st.integers(1, sum(held for held, _ in workers))), workers


@given(plans())
def test_so_many_workers_may_vanish_in_any_combination_and_not_one_more(
    plan: tuple[int, list[tuple[int, bool]]],
) -> None:
    """Any k of n shards suffice; the workers hold different ones, and different numbers of them."""
    k, workers = plan
    live = [held for held, is_live in workers if is_live]
    spare = count_spare_workers(sum(live) - k, live)

    def suffice(without: int) -> bool:
        return all(sum(live) - sum(gone) >= k for gone in combinations(live, without))

    if not suffice(0):
        assert spare == 0
        return
    assert suffice(spare)
    assert spare == len(live) or not suffice(spare + 1)


@pytest.mark.parametrize(
    "code", [Code.uncoded(4), Code.parity(5), Code.mds(6, 2), Code.low_weight(6, 2)]
)
def test_the_number_is_what_the_code_decodes(code: Code) -> None:
    """For one shard per worker, after each loss that the code survives."""
    for lost in range(code.s + 1):
        left = range(lost, code.n)
        spare = count_spare_workers(code.s - lost, [1] * len(left))
        for vanished, survives in ((spare, True), (spare + 1, False)):
            found = {code.decodable(set(left) - set(gone)) for gone in combinations(left, vanished)}
            assert found == {survives}


def test_of_replicas_only_the_copies_may_vanish() -> None:
    """Twelve shards of six blocks: two that hold the same block may be the next to vanish."""
    s = Code.replication(12, 1).s
    assert count_spare_workers(s, [1] * 12) == 1
    assert count_spare_workers(s - 1, [1] * 11) == 0
    assert count_spare_workers(s - 2, [1] * 10) == 0


def make_detail(code: Code, redundancy: str) -> CodingDetail:
    return msgspec.structs.replace(OffloadSite(code).detail, redundancy=redundancy)


@pytest.mark.parametrize(
    ("detail", "workers", "description", "groups"),
    [
        (
            make_detail(Code.mds(6, 2), "coded"),
            6,
            "6 shards of code mds on 6 workers. "
            "Any 4 of the shards suffice: any 2 of 6 workers may vanish.",
            [PieceGroup("data", 0, 4), PieceGroup("parity", 4, 6)],
        ),
        (
            make_detail(Code.low_weight(6, 2), "coded-sparse"),
            6,
            "6 shards of code low_weight on 6 workers. "
            "Any 4 of the shards suffice: any 2 of 6 workers may vanish.",
            [PieceGroup("mixed", 0, 6)],
        ),
        (
            make_detail(Code.replication(12, 1), "replicate"),
            6,
            "12 shards of code replication on 6 workers. "
            "One copy of each of the 6 blocks suffices: any 1 of 6 workers may vanish.",
            [PieceGroup("copies", 0, 12)],
        ),
        (
            make_detail(Code.uncoded(3), "none"),
            3,
            "3 shards of code uncoded on 3 workers. All are needed: no worker may vanish.",
            [PieceGroup("data", 0, 3)],
        ),
        (
            make_detail(Code.uncoded(1), "coded"),
            1,
            "1 shard of code uncoded on 1 worker. All are needed: no worker may vanish.",
            [PieceGroup("data", 0, 1)],
        ),
    ],
)
def test_every_plan_is_described_as_what_it_is(
    detail: CodingDetail, workers: int, description: str, groups: list[PieceGroup]
) -> None:
    assert describe_plan(detail, workers) == description
    assert list_groups(detail) == groups
