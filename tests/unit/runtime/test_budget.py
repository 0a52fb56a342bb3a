"""A sender that publishes far more than its peers is limited before its messages are decoded."""

from __future__ import annotations

import pytest

from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.budget import FLOOR_PER_S, PERIOD_S, SenderBudget


def run(
    rates: dict[str, float], kind: Kind = Kind.SCORES, seconds: float = 5.0
) -> dict[str, float]:
    """Rates in messages per second by sender; returns those that are admitted, after a while."""
    budget = SenderBudget()
    times = sorted(
        (n / rate, sender) for sender, rate in rates.items() for n in range(int(seconds * rate))
    )
    admitted = dict.fromkeys(rates, 0)
    for at_s, sender in times:
        taken = budget.admit(str(Topic("home", kind, sender)), 100 + at_s)
        admitted[sender] += taken and at_s >= 1.0
    return {sender: count / (seconds - 1.0) for sender, count in admitted.items()}


@pytest.mark.parametrize("flooding", [1, 2])
def test_a_flood_is_limited_and_nobody_else(flooding: int) -> None:
    rates = {f"cam{i}": 2000.0 if i <= flooding else 10.0 for i in range(1, 7)}
    admitted = run(rates)
    for i in range(1, 7):
        expected = FLOOR_PER_S if i <= flooding else 10.0
        assert admitted[f"cam{i}"] == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("rate", [1.0, 100.0, 1000.0])
def test_peers_that_send_alike_are_not_limited(rate: float) -> None:
    rates = {f"cam{i}": rate for i in range(6)}
    assert run(rates) == pytest.approx(rates, rel=0.05)


def test_a_sender_without_peers_is_not_limited() -> None:
    assert run({"cam1": 3000.0}) == pytest.approx({"cam1": 3000.0}, rel=0.05)


def test_unequal_rates_below_the_floor_are_not_limited() -> None:
    rates = {"cam1": 0.5, "cam2": 0.8 * FLOOR_PER_S}
    assert run(rates)["cam2"] == pytest.approx(rates["cam2"], rel=0.05)


@pytest.mark.parametrize("kind", [Kind.STATUS, Kind.ACK, Kind.BACKLOG, Kind.OFFER])
def test_state_and_confirmations_are_not_limited(kind: Kind) -> None:
    rates = {"cam1": 2000.0, "cam2": 1.0, "cam3": 1.0}
    assert run(rates, kind)["cam1"] == pytest.approx(2000.0, rel=0.05)


def test_topics_that_are_none_of_ours_are_not_limited_here() -> None:
    budget = SenderBudget()
    assert all(budget.admit("x/y", n * PERIOD_S / 1000) for n in range(5000))


@pytest.mark.parametrize("rate", [100.0, 0.9 * FLOOR_PER_S])
@pytest.mark.parametrize("stall_s", [0.4, 1.0, 1.9])
def test_what_came_during_a_stall_is_read(rate: float, stall_s: float) -> None:
    budget = SenderBudget()
    for at_s in (0.0, 0.1, 0.2, 0.3):
        budget.admit(str(Topic("home", Kind.SCORES, "cam1")), 100 + at_s)
    resumed_s = 100.3 + stall_s
    for n in range(int(rate * stall_s)):
        for camera in range(1, 7):
            topic = str(Topic("home", Kind.SCORES, f"cam{camera}"))
            assert budget.admit(topic, resumed_s + 1e-5 * n), n
