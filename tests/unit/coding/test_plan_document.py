"""A plan file: any error in it is one exception, raised when it is read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ddnn.coding import make_mds
from ddnn.coding.detail import CodingDetail, read_detail
from ddnn.core.plan import MAX_PIECES, Plan
from ddnn.errors import ConfigError
from tests.simulation.offload_site import CodedSite

# As it is read from a file: JSON has no tuples.
PLAN: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(CodedSite(make_mds(6, 2)).plan))
X, Z = {"type": "float32", "shape": [24]}, {"type": "float32", "shape": [10]}


def read(plan: dict[str, Any]) -> CodingDetail:
    return read_detail(msgspec.json.decode(msgspec.json.encode(plan), type=Plan))


def change_pieces(**arrays: Any) -> dict[str, Any]:
    piece = {**PLAN["pieces"][0], **arrays}
    return {"pieces": [piece] * len(PLAN["pieces"])}


def test_a_plan_is_equal_after_encoding_and_decoding() -> None:
    again = msgspec.json.decode(msgspec.json.encode(PLAN), type=Plan)
    assert msgspec.json.decode(msgspec.json.encode(again)) == PLAN
    assert (read_detail(again).make_code().generator == make_mds(6, 2).generator).all()


@pytest.mark.parametrize("edge", ["head", "tail", "piece"])
def test_an_edge_may_have_any_name(edge: str) -> None:
    assert read({**PLAN, "group": edge}).s == 2


@pytest.mark.parametrize(
    "keys",
    [
        {"tolerate": -5},
        {"tolerate": 10**9},
        {"s": -1},
        {"units": 0},
        {"units": -1},
        {"units": 3},  # fewer outputs than blocks
        {"units": 400},  # blocks of another size than the shards' outputs
        {"code": "x" * 500},
        {"layer": "x" * 500},
        {"generator": []},
        {"generator": [[]] * 6},
        {"generator": [[1.0], [1.0, 2.0]]},
        {"generator": [[1e400] * 4] * 6},
        {"generator": [[1.0] * 4] * 5},  # one row less than there are shards
        {"generator": [[1.0] * 4] * (MAX_PIECES + 1)},
        {"generator": [[1.0] * 7] * 6},  # more blocks than shards
        {"more": 1},
    ],
)
def test_an_invalid_detail_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, msgspec.MsgspecError)):
        read({**PLAN, "detail": {**PLAN["detail"], **keys}})


@pytest.mark.parametrize(
    "keys",
    [
        {"room": "students"},
        {"room": "../coding"},
        {"group": "Edge 1"},
        {"pieces": []},
        {"pieces": PLAN["pieces"][:5]},
        {"pieces": PLAN["pieces"] * 200},
        change_pieces(inputs={"x": {**X, "shape": [-4]}}),
        change_pieces(inputs={"x": {**X, "shape": [100_000, 100_000]}}),
        change_pieces(inputs={"x": {**X, "type": "object"}}),
        change_pieces(inputs={f"x{i}": X for i in range(17)}),
        change_pieces(outputs={"z": {**Z, "shape": [0]}}),
        change_pieces(outputs={"z": {**Z, "shape": [1] * 9}}),
        change_pieces(outputs={"z": {**Z, "shape": []}}),
        change_pieces(outputs={"z": Z, "y": Z}),
        change_pieces(outputs={}),
        {"pieces": [*PLAN["pieces"][:5], {**PLAN["pieces"][5], "inputs": {"y": X}}]},
        {"placement": {}},
        {"placement": {f"w{i}": [] for i in range(MAX_PIECES + 1)}},
        {"placement": {"worker1": [0, 0, 1, 2, 3, 4, 5]}},
        {"placement": {"worker1": [0, 1, 2, 3, 4]}},
        {"placement": {"worker1": [0, 1, 2, 3, 4, 5, 6]}},
        {"placement": {"worker1": [0, 1, 2, 3, 4, 5], "worker2": [5]}},  # one shard on two workers
        {"placement": {"Worker 1": [0, 1, 2, 3, 4, 5]}},
        {"owned": {}},
        {"owned": {**PLAN["owned"], "middle": PLAN["owned"]["head"]}},
        {"more": 1},
    ],
)
def test_an_invalid_plan_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, msgspec.MsgspecError)):
        read({**PLAN, **keys})
