"""The site's clock: a device with a wrong clock knows the lead edge's time, in virtual time."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from ddnn.core.site_time import MAX_EPOCH, MAX_TIME_S, SiteTime
from ddnn.machines.clock import (
    KEEP_EVERY_S,
    KEEP_S,
    MAX_ROUND_TRIP_S,
    REQUEST_EVERY_S,
    OnSiteTime,
    SiteClock,
)
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    KeepTime,
    Now,
    Publish,
    Received,
    Tick,
)
from ddnn.protocol.messages import Status, TimeReply, TimeRequest
from ddnn.protocol.topics import Kind, Topic

REPLY = Topic("home", Kind.TIME_REPLY, "cam1")
EPOCH_S = 1.78e9


class Device:
    """True time runs; the device's wall clock is `skew_s` ahead, its monotonic starts at 0."""

    def __init__(self, skew_s: float) -> None:
        self.skew_s, self.now_s = skew_s, 0.0
        self.clock = SiteClock("home", "cam1")

    def now(self) -> Now:
        return Now(self.now_s, EPOCH_S + self.now_s + self.skew_s)

    def ask(self, event: object) -> list[TimeRequest]:
        self.effects = self.clock.handle(event, self.now())
        published = [e for e in self.effects if isinstance(e, Publish)]
        assert all(e.topic == Topic("home", Kind.TIME_REQUEST, "cam1") for e in published)
        return [e.message for e in published]

    def ask_when_due(self) -> TimeRequest:
        while True:
            self.now_s = max(self.now_s, self.clock.deadline_s() or 0.0)
            for request in self.ask(Tick()):
                return request

    def exchange(self, there_s: float, back_s: float) -> None:
        """Ask when it is due, and take the answer."""
        ask = self.ask_when_due()
        reply = TimeReply(ask.asked_at_s, EPOCH_S + self.now_s + there_s)
        self.now_s += there_s + back_s
        self.ask(Received(REPLY, reply))

    def error_s(self) -> float:
        return self.clock.time_s(self.now()) - (EPOCH_S + self.now_s)


def connect(skew_s: float) -> Device:
    device = Device(skew_s)
    device.ask(Connected())
    return device


@pytest.mark.parametrize("skew_s", [0.0, 0.4, -3.0, -EPOCH_S + 86400.0])
def test_the_error_is_at_most_half_the_shortest_round_trip(skew_s: float) -> None:
    device = connect(skew_s)
    generator = np.random.default_rng(5)
    shortest_s = np.inf
    for _ in range(20):
        there_s, back_s = generator.exponential(0.01, 2) + 0.0005
        device.exchange(there_s, back_s)
        shortest_s = min(shortest_s, there_s + back_s)
        assert abs(device.error_s()) <= max(0.05, shortest_s / 2) + 1e-6
    # of the exchanges that are remembered: the error is bounded by half the best of the last eight
    assert abs(device.error_s()) < 0.01
    assert device.clock.gauges["clock_skew_s"] == pytest.approx(skew_s, abs=0.01)


def test_a_slow_exchange_does_not_spoil_a_fast_one() -> None:
    device = connect(1.0)
    device.exchange(0.001, 0.001)
    device.exchange(0.001, 0.8)
    assert abs(device.error_s()) < 1e-6


def test_a_step_of_the_own_clock_moves_nothing() -> None:
    device = connect(0.0)
    device.exchange(0.001, 0.001)
    device.skew_s = 3600.0
    assert abs(device.error_s()) < 1e-6


def test_before_the_first_answer_and_long_after_the_last_it_is_the_own_clock() -> None:
    device = connect(2.0)
    assert device.error_s() == pytest.approx(2.0)
    assert device.clock.gauges == {}
    device.exchange(0.001, 0.001)
    assert device.error_s() == pytest.approx(0.0, abs=1e-6)
    device.now_s += KEEP_S + 1
    assert device.error_s() == pytest.approx(2.0)


def test_it_asks_often_at_first_then_seldom_and_not_without_a_broker() -> None:
    device = Device(0.0)
    assert device.clock.deadline_s() is None
    assert len(device.ask(Connected())) == 1
    times = []
    while device.now_s < 100:
        device.ask_when_due()
        times.append(device.now_s)
    gaps = np.diff([0.0, *times])
    assert gaps[0] == REQUEST_EVERY_S[0]
    assert gaps[-1] == REQUEST_EVERY_S[1]
    assert len(times) < 15
    device.ask(Disconnected())
    device.now_s = device.clock.deadline_s()
    assert device.ask(Tick()) == []  # it only keeps the time


@pytest.mark.parametrize("round_trip_s", [-1.0, MAX_ROUND_TRIP_S + 0.1, 1e11])
def test_answers_that_fit_no_question_are_ignored(round_trip_s: float) -> None:
    device = connect(0.25)
    device.now_s = 5.0
    device.ask(Received(REPLY, TimeReply(device.now_s - round_trip_s, 1e12)))
    assert device.error_s() == pytest.approx(0.25)


def test_the_answer_to_another_device_is_not_ours() -> None:
    device = connect(0.25)
    other = Topic("home", Kind.TIME_REPLY, "cam2")
    device.ask(Received(other, TimeReply(0.0, EPOCH_S)))
    assert device.error_s() == pytest.approx(0.25)


def test_a_lead_whose_clock_was_set_is_followed_once_a_second_reply_agrees() -> None:
    device = connect(0.0)
    for _ in range(6):
        device.exchange(0.001, 0.001)
    lead_s = 3600.0

    def exchange() -> None:
        ask = device.ask_when_due()
        reply = TimeReply(ask.asked_at_s, EPOCH_S + lead_s + device.now_s + 0.004)
        device.now_s += 0.008  # slower than those before: the contradiction counts, not the speed
        device.ask(Received(REPLY, reply))

    exchange()
    assert device.error_s() == pytest.approx(0.0, abs=0.01)
    before_s = device.now_s
    exchange()
    assert device.now_s - before_s < 2 * REQUEST_EVERY_S[0]  # it makes sure soon
    assert device.error_s() == pytest.approx(lead_s, abs=0.01)


@pytest.mark.parametrize("epoch", [0, 1, MAX_EPOCH])
@pytest.mark.parametrize("time_s", [0.0, EPOCH_S - 86400.0, EPOCH_S + 86400.0, MAX_TIME_S])
@pytest.mark.parametrize("known", [0, 4])
def test_one_forged_reply_moves_nothing(known: int, time_s: float, epoch: int) -> None:
    """It comes before the lead's, which is then the second to the same question."""
    device = connect(0.0)
    for _ in range(known):
        device.exchange(0.001, 0.001)
    if known or epoch:
        ask = device.ask_when_due()
        device.ask(Received(REPLY, TimeReply(ask.asked_at_s, time_s, epoch)))
        device.ask(Received(REPLY, TimeReply(ask.asked_at_s, EPOCH_S + device.now_s)))
        assert device.error_s() == pytest.approx(0.0, abs=0.01)
    for _ in range(3):
        device.exchange(0.001, 0.001)
    assert device.error_s() == pytest.approx(0.0, abs=0.01)
    assert device.ask_when_due().epoch == 0


def test_a_lead_that_is_born_is_asked_at_once() -> None:
    device = connect(0.0)
    for _ in range(8):
        device.exchange(0.001, 0.001)
    device.now_s += 1.0
    birth = Status("edge", 5, "online")
    assert len(device.ask(Received(Topic("home", Kind.STATUS, "edge"), birth))) == 1
    assert (
        device.ask(Received(Topic("home", Kind.STATUS, "cam2"), Status("device", 5, "online")))
        == []
    )


def test_a_machine_on_site_time_stamps_what_others_understand() -> None:
    class Stamps:
        counts: ClassVar = {}
        gauges: ClassVar = {}

        def handle(self, event: object, now: Now) -> list[float]:
            return [now.wall_s]

    device = connect(1000.0)
    device.exchange(0.001, 0.001)
    (stamp,) = OnSiteTime(Stamps(), device.clock).handle(Tick(), device.now())
    assert stamp == pytest.approx(EPOCH_S + device.now_s, abs=0.01)


# ------------------------------------------------------------------ set back


def test_a_new_epoch_of_the_lead_is_followed() -> None:
    device = connect(0.0)
    for _ in range(4):
        device.exchange(0.001, 0.001)
    for _ in range(2):
        ask = device.ask_when_due()
        reply = TimeReply(ask.asked_at_s, EPOCH_S + device.now_s - 86400.0, 1)
        device.ask(Received(REPLY, reply))
    assert device.clock.read(device.now()) == (1, pytest.approx(EPOCH_S + device.now_s - 86400.0))


def test_a_lead_that_is_behind_its_own_replies_is_asked_for_a_later_epoch() -> None:
    """Its disk was replaced, so that it does not know the time before."""
    device = connect(0.0)
    for _ in range(4):
        device.exchange(0.001, 0.001)
    before = device.clock.read(device.now())
    for _ in range(2):
        ask = device.ask_when_due()
        device.ask(Received(REPLY, TimeReply(ask.asked_at_s, EPOCH_S + device.now_s - 3600.0, 0)))
    assert device.clock.read(device.now()) >= before
    assert device.ask_when_due().epoch == 1


def test_without_a_lead_the_own_time_is_not_set_back() -> None:
    device = connect(0.0)
    device.ask(Tick())
    device.skew_s = -30 * 86400.0
    device.ask(Tick())
    device.now_s += 7.0
    assert device.clock.read(device.now()) == (0, pytest.approx(EPOCH_S + device.now_s))
    assert device.clock.counts["clock_set_back"] == 1


def test_a_restart_with_a_clock_that_was_set_back_continues() -> None:
    kept = SiteTime(5, EPOCH_S + 100.0)
    clock = SiteClock("home", "cam1", kept, started_s=3.0)
    time = clock.read(Now(4.0, EPOCH_S - 86400.0))
    assert time == (5, pytest.approx(EPOCH_S + 101.0 + KEEP_EVERY_S))
    assert clock.read(Now(4.0, EPOCH_S + 500.0)) == (5, EPOCH_S + 500.0)


@pytest.mark.parametrize("replied_at_s", [0.0, 1e9])
def test_a_forged_reply_changes_nothing(replied_at_s: float) -> None:
    device = connect(0.0)
    device.exchange(0.001, 0.001)
    before = device.clock.read(device.now())
    for echo_s in (device.now_s, device.now_s - 0.01, 0.0):
        device.ask(Received(REPLY, TimeReply(echo_s, replied_at_s, 2000)))
    assert device.clock.read(device.now()) == before


def test_restarts_in_a_row_do_not_carry_the_time_ahead() -> None:
    """The wall clock is right, and the time is written every ten seconds only."""
    true_s, kept = EPOCH_S, None
    for _ in range(20):
        true_s += 3.0
        clock = SiteClock("home", "cam1", kept, started_s=0.0)
        now = Now(0.0, true_s)
        assert clock.read(now).time_s == pytest.approx(true_s)
        written = [e.time for e in clock.handle(Tick(), now) if isinstance(e, KeepTime)]
        assert clock.counts["clock_set_back"] == 0
        kept = written[-1] if written else kept


def test_an_edge_that_repeats_its_status_is_not_asked_more_often() -> None:
    device = connect(0.0)
    asked = 0
    for second in range(300):
        device.now_s = float(second)
        if second % 5 == 0:
            status = Status("edge", 7, "online")
            asked += len(device.ask(Received(Topic("home", Kind.STATUS, "edge"), status)))
        asked += len(device.ask(Tick()))
    assert asked < 30
