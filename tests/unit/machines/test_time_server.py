"""The lead edge's side of site time: steps of its clock, restarts and requests of devices."""

from __future__ import annotations

import pytest

from ddnn.core.site_time import MAX_EPOCH, SiteTime
from ddnn.machines.time_server import GROW_EVERY_S, GROWTH, KEEP_EVERY_S, TimeServer
from ddnn.protocol.machine import Effect, Event, KeepTime, Log, Now, Publish, Received, Tick
from ddnn.protocol.messages import TimeReply, TimeRequest
from ddnn.protocol.topics import Kind, Topic

START_S = 1.78e9
DAY_S = 86400.0


class Lead:
    """A time server whose wall clock a test sets; `kept` is its disk."""

    def __init__(self) -> None:
        self.now_s, self.ahead_s = 100.0, 0.0
        self.kept: SiteTime | None = None
        self.restart()

    def restart(self) -> None:
        self.server = TimeServer("home", self.kept)

    def handle(self, event: Event) -> list[Effect]:
        now = Now(self.now_s, START_S + self.now_s + self.ahead_s)
        effects = self.server.handle(event, now)
        for effect in effects:
            if isinstance(effect, KeepTime):
                self.kept = effect.time
        return effects

    def request(self, epoch: int = 0) -> SiteTime | None:
        """The time that a device gets."""
        topic = Topic("home", Kind.TIME_REQUEST, "cam1")
        for effect in self.handle(Received(topic, TimeRequest(5.0, epoch))):
            if isinstance(effect, Publish):
                assert isinstance(effect.message, TimeReply)
                assert effect.message.echo_s == 5.0
                return SiteTime(effect.message.epoch, effect.message.replied_at_s)
        return None

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while (due_s := self.server.deadline_s()) is not None and due_s <= until_s:
            self.now_s = max(self.now_s, due_s)
            self.handle(Tick())
        self.now_s = until_s


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("back_s", [10.0, 3600.0, 30 * DAY_S, START_S])
def test_no_time_is_told_twice_after_a_step_back(back_s: float, restart: bool) -> None:
    lead = Lead()
    lead.request()
    lead.run(30.0)
    before = lead.request()
    lead.ahead_s -= back_s
    if restart:
        lead.restart()
    lead.run(5.0)
    after = lead.request()
    assert before is not None
    assert after is not None
    assert after.epoch == before.epoch + 1
    assert lead.kept == SiteTime(1, pytest.approx(after.time_s, abs=KEEP_EVERY_S))
    assert lead.server.counts["clock_set_back"] == 1


def test_a_clock_that_was_ahead_for_a_while_begins_one_epoch() -> None:
    lead = Lead()
    lead.request()
    lead.ahead_s = 60 * DAY_S
    (warning,) = (e for e in lead.handle(Tick()) if isinstance(e, Log))
    assert "ahead" in warning.message
    lead.run(60.0)
    lead.ahead_s = 0.0
    lead.run(600.0)
    assert lead.request() == SiteTime(1, START_S + lead.now_s)
    assert lead.server.counts == {"clock_set_back": 1, "clock_set_ahead": 1}


def test_small_steps_begin_no_epoch() -> None:
    lead = Lead()
    lead.request()
    for step_s in (-0.9, 0.5, -0.6, 3.0):
        lead.ahead_s += step_s
        lead.run(10.0)
    assert lead.request() == SiteTime(0, pytest.approx(START_S + lead.now_s + lead.ahead_s))


def test_a_quick_restart_sends_no_time_that_may_have_been_sent() -> None:
    lead = Lead()
    lead.request()
    lead.run(10.0)
    before = lead.request()
    assert before is not None
    lead.restart()
    lead.ahead_s -= 0.5  # not to be seen: the time was last written up to two seconds ago
    while (again := lead.request()) is None:
        lead.run(0.1)
    assert again > before
    assert again.epoch == 0
    assert again.time_s - before.time_s < KEEP_EVERY_S + 0.2


def test_devices_that_know_a_later_epoch_are_followed_slowly() -> None:
    lead = Lead()
    assert lead.request(3) == SiteTime(3, START_S + lead.now_s)
    assert lead.request(MAX_EPOCH) == SiteTime(3, START_S + lead.now_s)  # not so soon again
    lead.run(GROW_EVERY_S)
    before = lead.request(MAX_EPOCH)
    assert before is not None
    assert before.epoch == 3 + GROWTH


def test_epochs_end_at_the_last() -> None:
    lead = Lead()
    lead.kept = SiteTime(MAX_EPOCH, START_S + 1e6)
    lead.restart()
    assert lead.request() == SiteTime(MAX_EPOCH, START_S + lead.now_s)
