"""The published state of a coded plan: its description, its kinds of shards, the spare workers."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.coding import Code, make_low_weight, make_mds, make_parity, make_replication, make_uncoded
from ddnn.coding.detail import CodingDetail
from ddnn.coding.state import count_spare_workers, describe_plan, list_groups
from ddnn.protocol.offload_state import PieceGroup
from tests.simulation.offload_site import CodedSite


@st.composite
def plans(draw: Any) -> tuple[int, list[tuple[int, bool]]]:
    """k, and for each worker the number of its shards and whether it is live."""
    workers = draw(
        st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6).filter(
            lambda workers: any(shards for shards, _ in workers)
        )
    )
    return draw(st.integers(1, sum(shards for shards, _ in workers))), workers


@given(plans())
def test_the_spare_workers_may_fail_in_any_combination_and_no_more(
    plan: tuple[int, list[tuple[int, bool]]],
) -> None:
    """Any k of n shards suffice; the workers have different shards, and different numbers."""
    k, workers = plan
    live = [shards for shards, is_live in workers if is_live]
    spare = count_spare_workers(sum(live) - k, live)

    def is_enough_without(lost: int) -> bool:
        return all(sum(live) - sum(stragglers) >= k for stragglers in combinations(live, lost))

    if not is_enough_without(0):
        assert spare == 0
        return
    assert is_enough_without(spare)
    assert spare == len(live) or not is_enough_without(spare + 1)


@pytest.mark.parametrize(
    "code", [make_uncoded(4), make_parity(5), make_mds(6, 2), make_low_weight(6, 2)]
)
def test_the_number_of_spare_workers_agrees_with_the_code(code: Code) -> None:
    """For one shard per worker, after each number of losses that the code tolerates."""
    for lost in range(code.s + 1):
        left = range(lost, code.n)
        spare = count_spare_workers(code.s - lost, [1] * len(left))
        for failures, tolerated in ((spare, True), (spare + 1, False)):
            found = {
                code.is_decodable(set(left) - set(stragglers))
                for stragglers in combinations(left, failures)
            }
            assert found == {tolerated}


def test_of_two_replicas_one_is_spare() -> None:
    """Twelve shards of six blocks: the next two to fail may be copies of the same block."""
    s = make_replication(12, 1).s
    assert count_spare_workers(s, [1] * 12) == 1
    assert count_spare_workers(s - 1, [1] * 11) == 0
    assert count_spare_workers(s - 2, [1] * 10) == 0


def make_detail(code: Code, redundancy: str) -> CodingDetail:
    return msgspec.structs.replace(CodedSite(code).detail, redundancy=redundancy)


@pytest.mark.parametrize(
    ("detail", "workers", "description", "groups"),
    [
        (
            make_detail(make_mds(6, 2), "coded"),
            6,
            "6 shards of code mds on 6 workers. "
            "Any 4 of the shards suffice: any 2 of 6 workers may vanish.",
            [PieceGroup("data", 0, 4), PieceGroup("parity", 4, 6)],
        ),
        (
            make_detail(make_low_weight(6, 2), "coded-sparse"),
            6,
            "6 shards of code low_weight on 6 workers. "
            "Any 4 of the shards suffice: any 2 of 6 workers may vanish.",
            [PieceGroup("mixed", 0, 6)],
        ),
        (
            make_detail(make_replication(12, 1), "replicate"),
            6,
            "12 shards of code replication on 6 workers. "
            "One copy of each of the 6 blocks suffices: any 1 of 6 workers may vanish.",
            [PieceGroup("copies", 0, 12)],
        ),
        (
            make_detail(make_uncoded(3), "none"),
            3,
            "3 shards of code uncoded on 3 workers. All are needed: no worker may vanish.",
            [PieceGroup("data", 0, 3)],
        ),
        (
            make_detail(make_uncoded(1), "coded"),
            1,
            "1 shard of code uncoded on 1 worker. All are needed: no worker may vanish.",
            [PieceGroup("data", 0, 1)],
        ),
    ],
)
def test_the_description_and_the_groups_follow_the_redundancy(
    detail: CodingDetail, workers: int, description: str, groups: list[PieceGroup]
) -> None:
    assert describe_plan(detail, workers) == description
    assert list_groups(detail) == groups
