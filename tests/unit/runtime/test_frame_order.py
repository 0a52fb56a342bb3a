"""The order of stored frames: the same for all who read it, whenever it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddnn.errors import ConfigError
from ddnn.runtime.frame_order import FILE, FrameOrder, write_order

FIRST = 17_000_000_003
COUNT = 50


def frames(order: FrameOrder, first: int = FIRST) -> list[int]:
    return [order.find_frame(sample) for sample in range(first, first + 2 * COUNT)]


def test_without_an_order_it_is_the_sample_number(tmp_path: Path) -> None:
    assert frames(FrameOrder(tmp_path, COUNT)) == [
        sample % COUNT for sample in range(FIRST, FIRST + 2 * COUNT)
    ]


def test_an_order_that_appears_later_is_the_same_wherever_it_begins(tmp_path: Path) -> None:
    orders = []
    for number, first in enumerate((FIRST, FIRST + 7)):
        directory = tmp_path / str(number)
        directory.mkdir()
        order = FrameOrder(directory, COUNT)
        assert order.find_frame(first - 1) == (first - 1) % COUNT
        write_order(directory, first, seed=3)
        assert order.find_frame(first - 1) == (first - 1) % COUNT
        orders.append(frames(order, first))
        assert orders[-1] == frames(FrameOrder(directory, COUNT), first)
    assert orders[0] == orders[1]
    assert sorted(orders[0][:COUNT]) == list(range(COUNT))  # each frame once
    assert orders[0][:COUNT] == orders[0][COUNT:]  # over and over


def test_another_seed_is_another_order(tmp_path: Path) -> None:
    orders = set()
    for seed in range(3):
        write_order(tmp_path, FIRST, seed)
        orders.add(tuple(frames(FrameOrder(tmp_path, COUNT))))
    assert len(orders) == 3


@pytest.mark.parametrize("text", ["", "nonsense", '{"first": 1}', '{"first": 1, "seed": -1}'])
def test_a_broken_order_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"order\.json"):
        FrameOrder(tmp_path, COUNT).find_frame(FIRST)
