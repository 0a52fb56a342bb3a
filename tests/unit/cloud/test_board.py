"""For how long no answer came, by what the page has seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_app.store import Store
from cloud_app.web import board as board_module
from cloud_app.web.board import Board
from cloud_app.web.messages import Viewer
from tests.answer_builder import make_answer
from tests.site_builder import FakeSite

DAY_S = 86_400.0


class Clock:
    """Replaces the module time of the board."""

    now_s = 5 * DAY_S

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return 1e9 + self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(board_module, "time", clock)
    return clock


def test_quiet_is_measured_whether_or_not_somebody_looks(store: Store, clock: Clock) -> None:
    board = Board(store, FakeSite())
    sample = 0

    def answer(behind_s: float = 0.0) -> None:
        nonlocal sample
        sample += 1
        store.save([("home", make_answer(sample, answered_at_s=clock.time() - behind_s))])

    def look() -> Any:
        return json.loads(board.make_state(None, Viewer(False, "")))["quiet_s"]

    assert look() is None
    clock.now_s += 60.0
    answer()
    clock.now_s += 40.0
    assert look() == 40.0
    answer(behind_s=DAY_S)  # a node whose clock is wrong, while the page is viewed
    clock.now_s += 1.0
    assert look() == 0.0
    clock.now_s += 5.0
    assert look() == 5.0
    clock.now_s += DAY_S  # nobody looks, and the site answers once more
    answer()
    clock.now_s += DAY_S
    assert look() == DAY_S
    clock.now_s += 5.0
    assert look() == DAY_S + 5.0
