"""How much of the time workers could be counted on, over plans and connections."""

from __future__ import annotations

import pytest

from ddnn.core.device import ASSUMED_OUTAGE, PRIOR_S, estimate_outage
from ddnn.machines.availability import HALF_LIFE_S, MAX_GAP_S, Availability
from ddnn.machines.workers import WorkerPool
from ddnn.protocol.messages import Status, WorkerOffer


def observe(availability: Availability, up: bool, seconds: int, start_s: float = 0.0) -> float:
    """Observe a worker each second; the time of the last observation."""
    for second in range(seconds + 1):
        availability.observe({"w": up}, start_s + second)
    return start_s + seconds


def test_the_share_of_time() -> None:
    availability = Availability()
    assert availability.read("w") == (0.0, 0.0)
    now_s = observe(availability, True, 30)
    observe(availability, False, 10, now_s)
    outage, seconds = availability.read("w")
    assert outage == pytest.approx(0.25, rel=1e-3)
    assert seconds == pytest.approx(40, rel=1e-3)


def test_nothing_is_known_of_pauses() -> None:
    availability = Availability()
    now_s = observe(availability, False, 10)
    availability.pause()
    now_s = observe(availability, True, 10, now_s + 1000)
    availability.observe({"w": True}, now_s + 1000)  # a stall of the owner itself
    outage, seconds = availability.read("w")
    assert seconds == pytest.approx(20 + MAX_GAP_S, rel=1e-3)
    assert outage == pytest.approx(10 / (20 + MAX_GAP_S), rel=1e-2)


def test_earlier_times_count_less() -> None:
    availability = Availability()
    step_s, count = MAX_GAP_S, int(HALF_LIFE_S / MAX_GAP_S)
    for up in (False, True):
        for step in range(count):
            availability.observe({"w": up}, step_s * (step + up * count))
    assert availability.read("w").outage == pytest.approx(1 / 3, rel=1e-2)


def test_an_estimate_begins_with_what_is_assumed_and_is_never_0() -> None:
    assert estimate_outage(0.0, 0.0) == ASSUMED_OUTAGE
    assert estimate_outage(0.5, PRIOR_S, 0.1) == pytest.approx(0.3)
    assert 0 < estimate_outage(0.0, 1e6) < 1e-3
    assert estimate_outage(1.0, 1e9, 0.0) < 1


# ------------------------------------------------------------------- of a pool


def status(state: str, session: int = 1) -> Status:
    return Status("worker", session, state)


def make_pool(plan: str = "plan") -> WorkerPool:
    pool = WorkerPool(plan, {"a": (0,), "b": (1,), "c": (2,)})
    for name in "ab":
        pool.take_status(name, status("online"), 0.0)
        pool.take_offer(name, WorkerOffer({plan: [0]}))
    return pool


def watch(pool: WorkerPool, begin: int, end: int) -> None:
    for second in range(begin, end + 1):
        pool.observe(float(second))


def test_a_pool_observes_who_is_away_stalled_or_faulty() -> None:
    pool = make_pool()
    watch(pool, 0, 10)
    pool.take_status("a", status("lost"), 10.0)
    watch(pool, 11, 20)
    states = pool.states()
    assert states["a"].outage == pytest.approx(0.5, rel=1e-3)
    assert (states["b"].outage, states["c"].observed_s) == (0.0, 0.0), "c was never seen"
    for _ in range(2):
        pool.note_misses(["b"], 20.0)  # stalled
    watch(pool, 21, 40)
    assert pool.states()["b"].outage == pytest.approx(0.5, rel=1e-3)
    pool.note_report("b")
    pool.quarantine(["b"])
    watch(pool, 41, 80)
    assert pool.states()["b"].outage == pytest.approx(0.75, rel=1e-3)


def test_the_next_plan_goes_on_and_a_lost_connection_counts_for_nobody() -> None:
    pool = make_pool()
    watch(pool, 0, 10)
    pool.take_status("a", status("lost"), 10.0)
    following = WorkerPool("next", {"a": (0,), "b": (1,)})
    following.adopt_presence(pool, 10.0)
    assert following.responds("b")
    assert not following.responds("a")
    watch(following, 11, 20)  # a is known to be away, also to the new plan
    assert following.states()["a"].outage == pytest.approx(0.5, rel=1e-3)
    following.disconnect()
    watch(following, 1000, 1010)  # connected again, but no status has come yet
    following.take_status("a", status("online", 2), 1010.0)
    watch(following, 1011, 1031)
    states = following.states()
    assert states["a"].outage == pytest.approx(0.25, rel=0.03)
    assert states["b"].outage == 0
    assert states["b"].observed_s == pytest.approx(20, rel=1e-3)
