"""Offloading while the edge, the broker or the network fails, or workers compute wrong results."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.coding.constructions import make_low_weight, make_mds
from ddnn.machines.placement import SETTLE_S
from ddnn.runtime.simulated_network import Network
from tests.simulation.offload_checks import (
    CODES,
    SAMPLES,
    START_S,
    answer_at_the_edge,
    assert_equal,
    assert_in_time,
    count_escalated,
    list_latencies_s,
    make_site,
)
from tests.simulation.offload_site import EDGE, STEADY, CodedSite, OffloadSite
from tests.simulation.scenario import PERIOD_S, TIMING
from tests.simulation.small_hierarchy import run_undistributed

# ------------------------------------------------------- the edge, the broker, the network


@pytest.mark.parametrize("what", ["edge crashes", "broker dies"])
def test_workers_keep_their_pieces_during_an_outage(what):
    """No worker loads a piece again, not even a spare."""
    run = make_site().make_run()
    run.add_worker("spare1")
    run.simulation.crash("home/worker5")
    down_s, up_s = START_S + 1.0, START_S + 1.3
    if what == "edge crashes":
        run.simulation.at(down_s, lambda: run.simulation.crash(f"home/{EDGE}"))
        run.simulation.at(up_s, lambda: run.simulation.start(f"home/{EDGE}"))
    else:
        run.simulation.at(down_s, lambda: run.simulation.set_broker(False))
        run.simulation.at(up_s, lambda: run.simulation.set_broker(True))
    run.scenario.run(settle_s=15.0)
    assert run.store.keys() == answer_at_the_edge().keys()
    assert_equal(run, answer_at_the_edge(), [*range(9), *range(15, SAMPLES)])
    assert run.offload_state.live_pieces == 6
    loaded = run.simulation.journal.loaded
    planned = [entry for entry in loaded if entry[0] > down_s and entry[1] != "home/spare1"]
    assert planned == []
    after = sum(answer_at_the_edge()[n].exit != "local" for n in range(14, SAMPLES))
    assert run.offload_state.combined >= after > 0
    assert run.offload_state.computed_here <= 1 + SETTLE_S / PERIOD_S


@pytest.mark.parametrize("seed", range(6))
def test_answers_are_correct_on_a_lossy_network(seed):
    """With loss, duplicates, reordering and crashes each sample is answered in time; each answer
    of an exit equals that of the undistributed network with the same members."""
    network = Network(latency_s=0.003, jitter_s=0.004, loss=0.02, duplication=0.05, reordering=0.1)
    generator = np.random.default_rng(seed)
    run = make_site().make_run(samples=60, network=network, seed=seed)
    for _ in range(6):
        worker, at_s = f"worker{generator.integers(1, 7)}", START_S + generator.random() * 5
        run.schedule(at_s, "crash", worker)
        run.schedule(at_s + generator.random(), "start", worker)
    run.scenario.run(settle_s=30.0)
    manifest, sections = run.site.manifest, run.site.sections
    assert run.store.keys() == set(range(60))
    equal = 0
    for n, images in enumerate(run.scenario.images):
        answer = run.store[n]
        if answer.exit == "device":
            continue
        expected = run_undistributed(
            manifest, sections, images, manifest.hierarchy.make_mask(answer.members)
        )
        if answer.exit == expected.exit:
            equal += 1
            assert answer.label == expected.label
            np.testing.assert_allclose(
                answer.probabilities, expected.probabilities, rtol=0, atol=run.site.error
            )
    assert equal > 40
    assert run.offload_state.combined > 5
    first_s = {}
    for at_s, _, answer in run.simulation.answers:
        first_s.setdefault(answer.sample, at_s - (START_S + answer.sample * PERIOD_S))
    assert max(first_s.values()) <= TIMING.deadline_s


def test_same_seed_same_run():
    def run_once():
        run = make_site().make_run(network=Network(loss=0.02, duplication=0.05, reordering=0.1))
        run.schedule(START_S + 0.7, "crash", "worker2")
        run.scenario.run()
        return run.simulation.answers, run.simulation.journal.handled, run.offload_state

    assert run_once() == run_once()


# ------------------------------------------------------------------------ faulty workers


def make_faulty_sections(site: OffloadSite, factor: float = 1.5):
    def scale_output(section):
        return lambda arrays: {"z": section(arrays)["z"] * np.float32(factor)}

    return {name: scale_output(section) for name, section in site.shards.items()}


def test_a_faulty_worker_is_excluded_until_it_restarts():
    run = make_site().make_run()
    faulty = run.simulation.node("home/worker2")
    truth, faulty.sections = faulty.sections, make_faulty_sections(run.site)
    seen = {}
    run.simulation.at(START_S + 1.5, lambda: seen.update(found=run.offload_state))

    def start_again():
        run.simulation.crash("home/worker2")
        faulty.sections = truth
        run.simulation.start("home/worker2")

    run.simulation.at(START_S + 2.0, start_again)
    run.scenario.run()
    assert seen["found"].workers["worker2"].state == "faulty"
    assert [w.state for w in seen["found"].workers.values()].count("live") == 5
    assert run.machine(EDGE).counts["workers_faulty"] == 1
    found = min(n for n in range(SAMPLES) if answer_at_the_edge()[n].exit != "local") + 2
    assert_equal(run, answer_at_the_edge(), range(found, SAMPLES))
    assert run.offload_state.workers["worker2"].state == "live"
    assert run.offload_state.live_pieces == 6


def test_the_edge_computes_where_one_parity_cannot_locate_the_faulty_worker():
    """One parity detects that results contradict each other, but not which is wrong: the edge
    computes the layer itself as long as they do."""
    run = make_site("parity").make_run()
    run.simulation.node("home/worker2").sections = make_faulty_sections(run.site)
    run.scenario.run()
    deep = [n for n in range(SAMPLES) if answer_at_the_edge("parity")[n].exit != "local"]
    assert_equal(run, answer_at_the_edge("parity"), range(deep[1], SAMPLES))
    assert run.offload_state.computed_here >= len(deep) - 2
    assert_in_time(run)


def test_results_are_trusted_again_after_a_transient_fault():
    """After a while without contradictions the edge uses the results again."""
    site = CodedSite(CODES["parity"]())
    run = site.make_run(samples=160)
    node = run.simulation.node("home/worker2")
    truth, node.sections = node.sections, make_faulty_sections(site)

    def restore_sections():
        node.sections = truth

    run.simulation.at(START_S + 0.6, restore_sections)
    run.scenario.run()
    assert run.offload_state.computed_here < 8
    assert run.offload_state.combined > 40
    assert_in_time(run)


def test_a_worker_whose_section_fails_counts_as_lost():
    run = make_site().make_run(network=STEADY)
    plain = make_site().make_run(network=STEADY)
    broken = {
        name: lambda arrays: {"z": np.full(10, np.nan, np.float32)} for name in run.site.shards
    }
    run.simulation.node("home/worker3").sections = broken
    for each in (run, plain):
        each.scenario.run()
    assert_equal(run, answer_at_the_edge())
    np.testing.assert_allclose(
        list_latencies_s(run, range(SAMPLES)), list_latencies_s(plain, range(SAMPLES)), atol=1e-9
    )
    assert run.offload_state.workers["worker3"].state == "stalled"


# --------------------------------------------------------------------------- the scale


@pytest.mark.parametrize(("make", "s"), [(make_mds, 8), (make_low_weight, 4)])
def test_a_thousand_workers_tolerate_s_losses(make, s):
    """Any s of them crash or stall: the answers are equal, and the latency too."""
    n, samples = 1000, 8
    big = CodedSite(make(n, s, trials=1), units=2 * n)
    run, plain = (big.make_run(samples=samples, network=STEADY) for _ in range(2))
    gone = np.random.default_rng(1).choice(n, s, replace=False) + 1
    run.schedule(START_S - 0.01, "crash", *(f"worker{i}" for i in gone[: s // 2]))
    run.schedule(START_S - 0.01, "stall", *(f"worker{i}" for i in gone[s // 2 :]))
    for each in (run, plain):
        each.scenario.run(settle_s=2.0)
    whole = big.run_without_workers(samples).simulation.store
    expected = {sample: answer for (_, sample), answer in whole.items()}
    assert_equal(run, expected)
    assert run.offload_state.combined == count_escalated(expected) > 4
    np.testing.assert_allclose(
        list_latencies_s(run, range(samples)),
        list_latencies_s(plain, range(samples)),
        rtol=0,
        atol=1e-9,
    )
