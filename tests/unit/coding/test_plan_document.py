"""A plan's document: whatever is wrong with it gives one error before anything is built on it."""

from __future__ import annotations

import msgspec
import pytest
from ddnn.coding.deployment import Deployment

from ddnn.coding import Code
from ddnn.errors import ConfigError
from ddnn.protocol.messages import MAX_PIECES
from tests.simulation.shared import Site

PLAN = msgspec.to_builtins(Site(Code.mds(6, 2)).deployment)


def changed(**keys: object) -> bytes:
    return msgspec.json.encode({**PLAN, **keys})


def test_it_comes_back_equal() -> None:
    again = msgspec.json.decode(changed(), type=Deployment)
    assert msgspec.to_builtins(again) == PLAN
    assert (again.make_code().generator == Code.mds(6, 2).generator).all()


@pytest.mark.parametrize(
    "keys",
    [
        {"tolerate": -5},
        {"tolerate": 10**9},
        {"s": -1},
        {"units": 0},
        {"units": -1},
        {"units": 3},  # fewer outputs than blocks
        {"code": "x" * 500},
        {"layer": "x" * 500},
        {"section": "tail"},
        {"generator": []},
        {"generator": [[]] * 6},
        {"generator": [[1.0], [1.0, 2.0]]},
        {"generator": [[1e400] * 4] * 6},
        {"generator": [[1.0] * 4] * (MAX_PIECES + 1)},
        {"generator": [[1.0] * 7] * 6},  # more blocks than shards
        {"input_shape": []},
        {"input_shape": [-4]},
        {"input_shape": [100_000, 100_000]},
        {"shard_shape": [0]},
        {"shard_shape": [1] * 9},
        {"workers": {}},
        {"workers": {f"w{i}": [] for i in range(MAX_PIECES + 1)}},
        {"workers": {"worker1": [0, 0, 1, 2, 3, 4]}},
        {"workers": {"Worker 1": [0, 1, 2, 3, 4, 5]}},
        {"sections": {}},
        {"more": 1},
    ],
)
def test_what_is_wrong_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises((ConfigError, msgspec.MsgspecError)):
        msgspec.json.decode(changed(**keys), type=Deployment)
