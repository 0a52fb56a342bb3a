"""The window of tasks that wait for another node."""

from __future__ import annotations

from ddnn.machines.window import LEAST, START, Window


def test_replies_that_come_soon_widen_it_by_one_for_each_window() -> None:
    window = Window()
    for task in range(int(START)):
        assert not window.is_full
        window.send(task, 0.0, 1.0)
    assert window.is_full
    for task in range(int(START)):
        window.receive(task, 0.1)
    assert START + 0.9 < window.size < START + 1.0


def test_a_late_reply_and_one_that_does_not_come_make_it_smaller_than_what_waits() -> None:
    window = Window()
    for task in range(10):
        window.send(task, 1.0, 2.0)
    window.receive(0, 1.8)
    assert window.size == 8.0
    window.miss(1, 2.0)  # sent before the window was reduced
    assert window.size == 8.0
    window.send(10, 2.5, 3.5)
    window.miss(10, 3.5)
    assert window.size == 4.0


def test_one_task_may_always_wait() -> None:
    window = Window()
    for task in range(100):
        window.send(task, 2.0 * task, 2.0 * task + 1)
        window.miss(task, 2.0 * task + 1)
    assert window.size == LEAST
    assert not window.is_full


def test_what_was_dropped_waits_no_longer_and_says_nothing() -> None:
    window = Window()
    window.send(1, 0.0, 1.0)
    window.drop(1)
    window.receive(1, 5.0)
    window.miss(1, 5.0)
    assert window.size == START
