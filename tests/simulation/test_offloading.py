"""An edge that offloads its layer to workers, in virtual time, for every loss of workers.

The answers equal those of a site without workers, whose edge computes everything: exit, label,
members and quality of every sample; probabilities within the certified error.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ddnn.coding.constructions import make_mds
from ddnn.runtime.lanes import Costs
from ddnn.runtime.simulated_network import Network
from tests.simulation.offload_checks import (
    CODES,
    END_S,
    SAMPLES,
    START_S,
    answer_at_the_edge,
    assert_equal,
    assert_in_time,
    count_escalated,
    list_latencies_s,
    make_site,
)
from tests.simulation.offload_site import STEADY, TIMEOUT_S, CodedSite
from tests.simulation.scenario import PERIOD_S

# --------------------------------------------------------------------- coded = uncoded


@pytest.mark.parametrize("name", CODES)
def test_offloaded_answers_equal_those_computed_at_the_edge(name):
    run = make_site(name).make_run()
    run.scenario.run()
    assert_equal(run, answer_at_the_edge(name))
    assert_in_time(run)
    sharing = run.offload_state
    assert (sharing.combined, sharing.computed_here, sharing.given_up) == (
        count_escalated(answer_at_the_edge(name)),
        0,
        0,
    )
    assert {worker.state for worker in sharing.workers.values()} == {"live"}
    assert sharing.live_pieces == sharing.pieces


def test_a_worker_may_have_several_shards():
    """Six shards are on three workers of unequal power; the strongest one is lost."""
    site = CodedSite(make_mds(6, 3), {"big": (0, 2, 5), "mid": (1, 4), "small": (3,)}, tolerate=1)
    run = site.make_run()
    run.schedule(START_S + 0.5, "crash", "big")
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    assert run.offload_state.computed_here == 0


@pytest.mark.parametrize("how", ["crash", "stall"])
@pytest.mark.parametrize("gone", list(combinations(range(1, 7), 2)), ids=str)
def test_losing_any_two_of_six_workers_changes_no_answer(gone, how):
    """They are lost after one third of the samples; the edge computes none itself."""
    run = make_site().make_run()
    run.schedule(START_S + 10 * PERIOD_S + 0.0137, how, *(f"worker{i}" for i in gone))
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    assert_in_time(run)
    assert run.offload_state.combined == count_escalated(answer_at_the_edge())


@pytest.mark.parametrize("name", ["mds", "low weight"])
def test_two_crashes_at_any_event_change_no_answer(name):
    """Each pair crashes at another pair of events of the two workers, including their start."""
    samples = 8
    expected = answer_at_the_edge(name, samples)
    events = 5 + 2 * count_escalated(
        expected
    )  # born, kept, connected, assigned, loaded; task, computed
    pairs = list(combinations(range(1, 7), 2))
    for moment in range(2 * (events + 1)):
        run = make_site(name).make_run(samples=samples)
        first, second = pairs[moment % len(pairs)]
        run.simulation.crash_after(f"home/worker{first}", moment // 2)
        run.simulation.crash_after(f"home/worker{second}", (moment * 7) % (events + 1))
        run.scenario.run(settle_s=3.0)
        assert_equal(run, expected)
        assert_in_time(run)
        assert run.offload_state.combined == count_escalated(expected), moment


@pytest.mark.parametrize("seed", range(12))
def test_random_outages_of_at_most_two_workers_change_no_answer(seed):
    """Workers crash, restart, stall and resume at random times."""
    generator = np.random.default_rng(seed)
    run = make_site("mds" if seed % 2 else "low weight").make_run(seed=3)
    free_s = dict.fromkeys(run.site.workers, START_S - 0.2)
    for _ in range(2):  # in each lane at most one worker is gone at a time
        at_s = START_S + generator.random() * 0.3
        while at_s < END_S - 0.8:
            for_s = min(0.05 + generator.exponential(0.5), END_S - 0.5 - at_s)
            back_s = at_s + for_s + 0.6  # it has loaded, and is trusted again
            worker = next(w for w in generator.permutation(sorted(free_s)) if free_s[w] < at_s)
            free_s[worker] = back_s
            down, up = [("crash", "start"), ("stall", "resume")][generator.integers(2)]
            run.schedule(at_s, down, worker)
            run.schedule(at_s + for_s, up, worker)
            at_s = back_s + generator.random() * 0.2
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    assert_in_time(run)
    assert run.offload_state.computed_here == 0
    assert run.offload_state.live_pieces == 6  # all are back at the end


@pytest.mark.parametrize("seed", range(8))
def test_random_outages_of_any_number_change_no_answer(seed):
    """Where more than two are lost, the edge computes the layer; answers are still equal."""
    generator = np.random.default_rng(100 + seed)
    run = make_site().make_run()
    for worker in run.site.workers:
        at_s = START_S + generator.random()
        while at_s < END_S - 1.0:
            down, up = [("crash", "start"), ("stall", "resume")][generator.integers(2)]
            for_s = min(generator.exponential(0.8), END_S - 0.8 - at_s)
            run.schedule(at_s, down, worker)
            run.schedule(at_s + for_s, up, worker)
            at_s += for_s + generator.exponential(0.8)
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    assert_in_time(run)
    assert 0 < run.offload_state.computed_here < count_escalated(answer_at_the_edge())
    assert run.offload_state.live_pieces == 6


# ---------------------------------------------------------------------------- latency


@pytest.mark.parametrize("how", ["crash", "stall"])
def test_lost_workers_add_no_latency(how):
    """Without jitter the latency with two of six lost equals that without faults, also for the
    first sample, when no node can know of the loss."""
    plain, faulty = (
        make_site().make_run(network=STEADY),
        make_site().make_run(network=STEADY),
    )
    faulty.schedule(START_S - 0.001, how, "worker2", "worker5")
    plain.scenario.run()
    faulty.scenario.run()
    before, after = (
        list_latencies_s(plain, range(SAMPLES)),
        list_latencies_s(faulty, range(SAMPLES)),
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-9)
    assert faulty.offload_state.computed_here == 0


def test_without_redundancy_a_stalled_worker_adds_the_timeout_to_two_samples():
    """The baseline: the edge computes after the timeout. Answers are equal; two samples wait."""
    plain, faulty = (
        make_site("none").make_run(network=STEADY),
        make_site("none").make_run(network=STEADY),
    )
    faulty.schedule(START_S - 0.001, "stall", "worker2")
    plain.scenario.run()
    faulty.scenario.run()
    assert_equal(faulty, answer_at_the_edge("none"))
    more_s = list_latencies_s(faulty, range(SAMPLES)) - list_latencies_s(plain, range(SAMPLES))
    assert sorted(more_s > TIMEOUT_S / 2)[-3:] == [False, True, True]
    assert sorted(more_s)[-2] == pytest.approx(TIMEOUT_S, abs=0.01)
    assert faulty.offload_state.computed_here == count_escalated(answer_at_the_edge("none"))


def test_without_redundancy_a_crash_adds_only_the_delay_of_the_last_will():
    plain, faulty = (
        make_site("none").make_run(network=STEADY),
        make_site("none").make_run(network=STEADY),
    )
    first = min(n for n, answer in answer_at_the_edge("none").items() if answer.exit != "local")
    faulty.schedule(START_S + first * PERIOD_S + 0.012, "crash", "worker2")  # it has the task
    plain.scenario.run()
    faulty.scenario.run()
    will_s = STEADY.will_after_s
    more_s = faulty.store[first].latency_s - plain.store[first].latency_s
    assert will_s - 0.02 < more_s < will_s < TIMEOUT_S
    assert_equal(faulty, answer_at_the_edge("none"))


def test_a_straggler_threshold_bounds_the_wait_for_live_workers():
    """The straggler threshold of Hadidi et al.: the edge waits for slow workers, but no longer."""
    threshold_s = 0.03
    run = make_site().make_run(network=STEADY, threshold_s=threshold_s)
    fast = make_site().make_run(network=STEADY)
    run.schedule(START_S - 0.001, "stall", "worker2", "worker5")
    for each in (run, fast):
        each.scenario.run()
    more_s = list_latencies_s(run, range(SAMPLES)) - list_latencies_s(fast, range(SAMPLES))
    work_s = 0.002 + 4 * STEADY.latency_s  # the answers are there after it
    np.testing.assert_allclose(more_s[:1], threshold_s - work_s, atol=1e-9)
    np.testing.assert_allclose(more_s[4:], 0.0, atol=1e-9)  # nobody counts on them any more
    assert_equal(run, answer_at_the_edge())


# ----------------------------------------------------------------- more than s are gone


@pytest.mark.parametrize("how", [("crash", "start"), ("stall", "resume")], ids="-".join)
def test_the_edge_computes_while_more_than_s_workers_are_gone(how):
    run = make_site().make_run()
    gone = ("worker1", "worker3", "worker4")
    run.schedule(START_S + 1.0, how[0], *gone)
    run.schedule(START_S + 2.0, how[1], *gone)
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    assert_in_time(run)
    sharing = run.offload_state
    assert sharing.combined + sharing.computed_here == count_escalated(answer_at_the_edge())
    lost = sum(answer.exit != "local" for n, answer in answer_at_the_edge().items() if 10 <= n < 20)
    assert lost - 1 <= sharing.computed_here <= lost + 2  # and when they are back, they are used
    assert sharing.enough
    assert sharing.live_pieces == 6


def test_an_edge_without_the_layer_answers_from_the_local_exit():
    """It does so in time, with quality `degraded`, and only while too many workers are lost."""
    run = make_site().make_run(compute_here=False)
    gone = ("worker1", "worker3", "worker4")
    run.schedule(START_S + 1.0, "crash", *gone)
    run.schedule(START_S + 2.0, "start", *gone)
    run.scenario.run()
    assert_in_time(run)
    assert_equal(run, answer_at_the_edge(), [*range(10), *range(22, SAMPLES)])
    fallen = [n for n in range(10, 20) if answer_at_the_edge()[n].exit != "local"]
    assert fallen
    for n in fallen:
        assert (run.store[n].exit, run.store[n].quality) == ("local", "degraded")
        local = next(
            verdict for verdict in answer_at_the_edge()[n].exit_trace if verdict[0] == "local"
        )
        assert run.store[n].label == local[1]
    assert run.offload_state.computed_here == 0
    assert len(fallen) <= run.offload_state.given_up <= len(fallen) + 2


def test_stalled_workers_that_recover_are_used_again():
    """The broker reports no loss: the edge probes the workers until they answer."""
    run = make_site().make_run()
    run.schedule(START_S + 0.5, "stall", *run.site.workers)
    run.schedule(START_S + 1.2, "resume", *run.site.workers)
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    late = [n for n in range(25, SAMPLES) if answer_at_the_edge()[n].exit != "local"]
    assert late
    assert run.offload_state.enough
    decoded = run.offload_state.combined
    early = sum(answer_at_the_edge()[n].exit != "local" for n in range(5))
    assert decoded > early + len(late) - 1


def test_the_edge_stops_waiting_for_workers_that_are_always_late():
    """They are slower than the timeout: after two samples the edge computes at once."""
    run = make_site().make_run(network=STEADY)
    for name in ("worker1", "worker2", "worker3"):
        run.simulation.node(f"home/{name}").costs = Costs(any_section_s=3 * TIMEOUT_S)
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    waited = list_latencies_s(run, range(SAMPLES)) > TIMEOUT_S
    assert waited.sum() <= 2
    assert {run.offload_state.workers[f"worker{i}"].state for i in (1, 2, 3)} == {"stalled"}


# ------------------------------------------------------------- spares, and coming back


def test_a_spare_takes_the_pieces_of_a_lost_worker_and_returns_them():
    """After two losses a spare makes a third tolerable; a worker that returns gets its pieces."""
    run = make_site().make_run()
    run.simulation.at(START_S + 0.5, lambda: run.add_worker("spare1"))
    run.schedule(START_S + 0.8, "crash", "worker1", "worker4")
    seen = {}
    run.simulation.at(START_S + 1.4, lambda: seen.update(without=run.offload_state))
    run.schedule(START_S + 1.5, "crash", "worker6")  # a third one
    run.schedule(START_S + 2.0, "start", "worker1", "worker4", "worker6")
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    assert_in_time(run)
    assert run.offload_state.computed_here == 0
    assert seen["without"].workers["spare1"].pieces == [0]  # of worker1
    assert seen["without"].workers["spare1"].state == "live"
    assert seen["without"].live_pieces == 5
    assert run.offload_state.workers["spare1"].pieces == []  # its stay is over
    assert {w: list(p) for w, p in run.site.workers.items()} == {
        name: run.offload_state.workers[name].pieces for name in run.site.workers
    }
    assert run.machine("spare1").gauges["pieces_held"] == 0
    assert run.offload_state.live_pieces == 6


def test_a_spare_replaces_a_worker_that_hangs():
    """Its connection lasts, so that no Last Will reports it; that it does not answer suffices."""
    run = make_site().make_run(network=Network(stall_will_after_s=1e9))
    run.add_worker("spare1")
    run.schedule(START_S + 0.1, "stall", "worker3")
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    assert run.offload_state.workers["worker3"].state == "stalled"
    assert run.offload_state.workers["spare1"].pieces == [2]
    assert run.offload_state.live_pieces == 6


def test_spare_workers_alone_suffice():
    """No planned worker ever starts."""
    run = make_site().make_run()
    for name in run.site.workers:
        run.simulation.crash(f"home/{name}")
    for i in range(4):
        run.add_worker(f"spare{i}")
    run.scenario.run()
    assert_equal(run, answer_at_the_edge())
    assert run.offload_state.computed_here == 0
    assert run.offload_state.live_pieces == 4
