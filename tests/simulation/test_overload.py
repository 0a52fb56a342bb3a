"""A site that is offered more than it can do answers as much as it can, in full and in time."""

from __future__ import annotations

from functools import partial

import pytest

from ddnn.exits.timing import Timing
from ddnn.runtime.lanes import Costs, Link
from tests.simulation.offload_checks import answer_at_the_edge, count_escalated, make_site
from tests.simulation.overload_site import OverloadSite
from tests.simulation.scenario import PERIOD_S, TIMING

CAPACITY_HZ = 60.0
DEVICES = 3
# The edge handles three scores for a sample, and a confirmation.
EDGE = Costs(any_section_s=0.0, receive_s=1 / CAPACITY_HZ / (DEVICES + 1))
SETTLED_S, END_S = 5.0, 10.0


@pytest.mark.parametrize("factor", [1.5, 2, 4, 8])
def test_goodput_stays_at_the_capacity_whatever_is_offered(factor: float) -> None:
    site = OverloadSite(factor * CAPACITY_HZ, EDGE)
    site.run(END_S)
    site.stop()
    assert site.find_goodput_hz(SETTLED_S, END_S) >= 0.9 * CAPACITY_HZ
    assert site.list_unanswered() == []
    answers = site.list_answers(SETTLED_S, END_S)
    assert max(a.latency_s for a in answers) < TIMING.edge_s
    assert [a for a in answers if a.quality != "full"] == []
    assert site.counts["samples_shed"] > 0.8 * (1 - 1 / factor) * factor * CAPACITY_HZ * END_S


@pytest.mark.parametrize(("spread", "stall"), [(0.5, 1.0), (0.3, 4.0)])
@pytest.mark.parametrize("factor", [1.5, 8])
def test_goodput_stays_at_the_capacity_of_an_edge_of_uneven_speed(
    factor: float, spread: float, stall: float
) -> None:
    """An interval in which the edge is slow or fast says little about its capacity."""
    site = OverloadSite(factor * CAPACITY_HZ, EDGE)
    mean = site.vary_edge(2 * END_S, spread, stall)
    site.run(2 * END_S)
    site.stop()
    assert site.find_goodput_hz(SETTLED_S, 2 * END_S) >= 0.8 * CAPACITY_HZ / mean
    assert site.list_missing(delay=int(4 * factor * CAPACITY_HZ)) == []
    answers = site.list_answers(SETTLED_S, 2 * END_S)
    assert max(a.latency_s for a in answers) < TIMING.edge_s


def test_below_the_capacity_every_tick_is_taken() -> None:
    site = OverloadSite(0.8 * CAPACITY_HZ, EDGE)
    site.run(END_S)
    site.stop()
    assert (site.share, site.counts["samples_shed"]) == (1.0, 0)
    assert len(site.list_answers(0, END_S)) == pytest.approx(0.8 * CAPACITY_HZ * END_S, abs=1)


def test_the_site_returns_to_all_ticks_within_ten_seconds() -> None:
    """The edge is slow by a factor of eight for a while."""
    site = OverloadSite(CAPACITY_HZ, Costs(any_section_s=0.0, receive_s=8 * EDGE.receive_s))
    site.run(SETTLED_S)
    assert site.share < 0.25
    site.simulation.node("home/edge").costs = Costs(any_section_s=0.0, receive_s=0.0001)
    site.run(10.0)
    assert site.share == 1.0


@pytest.mark.parametrize("down_s", [0.5, 2.5, 20.0])
def test_an_edge_that_starts_anew_says_from_which_sample_on_all_ticks_are_taken(
    down_s: float,
) -> None:
    """It does not know what the one before it commanded, nor which samples the cameras took."""
    site = OverloadSite(2 * CAPACITY_HZ, EDGE)
    site.run(SETTLED_S)
    assert site.share < 1.0
    site.simulation.crash("home/edge")
    site.run(down_s)
    site.simulation.node("home/edge").costs = Costs(any_section_s=0.0)
    site.simulation.start("home/edge")
    site.run(SETTLED_S)
    assert site.share == 1.0
    expected = 2 * CAPACITY_HZ * SETTLED_S / 2
    began_s = SETTLED_S + down_s + SETTLED_S / 2
    answers = site.list_answers(began_s, began_s + SETTLED_S / 2)
    assert len(answers) == pytest.approx(expected, rel=0.2)
    site.stop()
    assert site.list_unanswered() == []
    assert site.list_missing(delay=int(4 * CAPACITY_HZ)) == []


def test_a_slow_section_of_the_edge_thins_the_ticks() -> None:
    costs = Costs(any_section_s=0.0, section_s={"edge": 0.025})
    site = OverloadSite(2 / 0.025, costs, letter="e", thresholds={"local": 0.0})
    site.run(END_S)
    site.stop()
    assert site.find_goodput_hz(SETTLED_S, END_S) >= 0.75 / 0.025
    assert site.list_unanswered() == []


def test_a_slow_cloud_answers_as_many_as_it_can_and_the_edge_the_others() -> None:
    site = OverloadSite(100.0, letter="e", thresholds={"local": 0.0, "edge": 0.0})
    site.simulation.node("home/cloud").costs = Costs(any_section_s=0.0, section_s={"cloud": 1 / 40})
    site.run(END_S)
    site.stop()
    answers = site.list_answers(SETTLED_S, END_S)
    deep = sum(a.exit == "cloud" for a in answers)
    assert deep / (END_S - SETTLED_S) >= 0.75 * 40
    assert {a.exit for a in answers} == {"cloud", "edge"}
    assert (site.list_unanswered(), site.counts["samples_shed"]) == ([], 0)
    assert site.counts["cloud_shed"] > 0
    assert len(answers) == pytest.approx(100 * (END_S - SETTLED_S), abs=1)


def test_cameras_that_lack_the_processor_take_the_same_ticks() -> None:
    """They do not queue: each skips ticks of its own, so that few samples are complete."""
    cameras = Costs(any_section_s=0.004, receive_s=0.001)
    site = OverloadSite(240.0, Costs(any_section_s=0.0, receive_s=0.002), cameras, cores=2)
    site.run(END_S)
    answers = site.list_answers(SETTLED_S, END_S)
    full = sum(a.quality == "full" for a in answers)
    assert full / len(answers) > 0.7
    assert full / (END_S - SETTLED_S) > 60


class SlowLink(Link):
    """A link that delays everything by the same time."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self._delay_s = delay_s

    def take(self, now_s: float, size_bytes: int) -> float:
        return now_s + self._delay_s


def test_a_long_way_is_no_queue() -> None:
    site = OverloadSite(20.0)
    for device in site.manifest.hierarchy.devices:
        node = site.simulation.node(f"home/{device}")
        node.uplink, node.downlink = SlowLink(0.35), SlowLink(0.35)
    site.run(END_S)
    site.stop()
    assert site.counts["samples_shed"] == 0
    answers = site.list_answers(0, END_S)
    assert min(a.latency_s for a in answers) > 0.3
    assert {a.quality for a in answers} == {"full"}


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("from_the_start", [False, True])
def test_what_is_three_seconds_old_is_not_fresh(from_the_start: bool, both_ways: bool) -> None:
    """A constant delay looks like a clock that is behind; but the cameras know the time."""
    site = OverloadSite(10.0)

    def delay() -> None:
        for device in site.manifest.hierarchy.devices:
            node = site.simulation.node(f"home/{device}")
            node.uplink = SlowLink(3.0)
            if both_ways:
                node.downlink = SlowLink(3.0)

    delay_s = -2.99 if from_the_start else 4.0
    site.simulation.at(3.0 + delay_s, delay)
    site.run(30.0)
    late = site.list_answers(20.0, 25.0)
    assert len(late) >= 45
    assert {(a.quality, a.exit) for a in late} == {("degraded", "device")}
    assert min(a.latency_s for a in late) > TIMING.device_s - 1e-6


@pytest.mark.parametrize("phase_s", [0.0, 0.03, 0.07])
@pytest.mark.parametrize("receive_s", [0.0001, 0.003])
@pytest.mark.parametrize("node", ["edge", "cloud"])
def test_a_node_that_stood_still_is_no_overload(
    node: str, receive_s: float, phase_s: float
) -> None:
    """What piled up in front of it is done far faster than new work comes."""
    costs = Costs(any_section_s=receive_s, receive_s=receive_s)
    site = OverloadSite(10.0, costs, letter="e", devices=6, thresholds={"local": 0.0})
    simulation = site.simulation
    simulation.at(8.0 + phase_s, lambda: simulation.stall(f"home/{node}"))
    simulation.at(10.5 + phase_s, lambda: simulation.resume(f"home/{node}"))
    site.run(12.0)
    site.stop()
    assert (site.share, site.counts["samples_shed"]) == (1.0, 0)
    assert site.list_unanswered() == []


@pytest.mark.parametrize("stall_s", [0.3, 5.0])
@pytest.mark.parametrize("stalled", [["cam2"], ["cam1", "cam2", "cam3", "cam4"]])
def test_waiting_for_cameras_that_stand_still_is_no_overload(
    stalled: list[str], stall_s: float
) -> None:
    """The edge waits twice for a camera, for its scores and then for its features."""
    site = OverloadSite(30.0, letter="e", devices=6, thresholds={"local": 0.0})
    for device in stalled:
        name = f"home/{device}"
        site.simulation.at(8.0, partial(site.simulation.stall, name))
        site.simulation.at(8.0 + stall_s, partial(site.simulation.resume, name))
    site.run(12.0)
    site.stop()
    assert (site.share, site.counts["samples_shed"]) == (1.0, 0)
    assert site.list_unanswered() == []


@pytest.mark.parametrize("compute_s", [0.25, 0.3])
@pytest.mark.parametrize("compute_here", [True, False])
def test_workers_that_are_too_slow_get_as_many_tasks_as_they_can_do(
    compute_s: float, compute_here: bool
) -> None:
    """The edge does without them for the others, at once. No worker is taken to have stalled."""
    samples = 200
    run = make_site().make_run(
        samples=samples,
        timing=Timing(window_s=1.0, deadline_s=5.0),
        compute_s=compute_s,
        compute_here=compute_here,
        timeout_s=1.0,
    )
    run.scenario.run()
    state = run.offload_state
    assert len(run.store) == samples
    assert state.combined > 0.65 * samples * PERIOD_S / compute_s
    asked = count_escalated(answer_at_the_edge(samples=samples))
    assert state.combined + state.computed_here + state.given_up == asked
    assert run.machine("edge").counts["tasks_shed"] > 0
    assert {worker.state for worker in state.workers.values()} == {"live"}
