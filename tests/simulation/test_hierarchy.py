"""Machines in virtual time: distributed answers equal undistributed ones, also with faults."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from ddnn.exits.cost import compute_communication_bytes
from ddnn.exits.hierarchy import CONFIGURATIONS
from ddnn.exits.inference import count_payload_bytes
from ddnn.runtime.simulated_network import Network
from tests.simulation.scenario import PERIOD_S, TIMING, build_scenario
from tests.simulation.small_hierarchy import (
    make_hierarchy,
    make_manifest,
    make_sections,
    run_undistributed,
)

SCHEMES = [("MP", "CC"), ("AP", "AP"), ("CC", "MP")]
JITTER = Network(latency_s=0.002, jitter_s=0.002)


@pytest.mark.parametrize("schemes", SCHEMES, ids="-".join)
@pytest.mark.parametrize("letter", CONFIGURATIONS)
def test_distributed_equals_undistributed(letter, schemes):
    """Label, exit and scores of every sample, in all six configurations."""
    manifest = make_manifest(make_hierarchy(letter, 4, schemes))
    sections = make_sections(manifest)
    scenario = build_scenario(manifest, sections, network=JITTER, samples=30)
    scenario.run()
    seen = set()
    for sample, images in enumerate(scenario.images):
        answer = scenario.simulation.store["home", sample]
        expected = run_undistributed(manifest, sections, images)
        assert (answer.exit, answer.label) == (expected.exit, expected.label)
        assert answer.probabilities == expected.probabilities
        assert answer.eta == expected.eta
        assert (answer.quality, answer.missing, answer.late) == ("full", [], False)
        assert answer.truth == scenario.labels[sample]
        if letter != "a":
            assert answer.payload_bytes == count_payload_bytes(
                manifest, expected.exit, manifest.hierarchy.everyone
            )
        seen.add(answer.exit)
    assert seen == set(manifest.hierarchy.exits)  # the thresholds let every exit answer some


def test_payload_equals_the_formula():
    """c = 4 |C| + (1 - l) f o / 8, float32 scores, counted by the running machines."""
    manifest = make_manifest(make_hierarchy("e"))
    scenario = build_scenario(manifest, make_sections(manifest), samples=50)
    scenario.run()
    answers = [scenario.simulation.store["home", n] for n in range(50)]
    members = len(manifest.hierarchy.devices)
    local = np.mean([a.exit == "local" for a in answers])
    counted = np.mean([a.payload_bytes / members for a in answers])
    assert counted == pytest.approx(compute_communication_bytes(4, local, filters=3, outputs=16))


def test_each_sample_gets_one_answer_in_time():
    manifest = make_manifest(make_hierarchy("e"))
    scenario = build_scenario(manifest, make_sections(manifest), network=JITTER)
    scenario.run()
    samples = [answer.sample for _, _, answer in scenario.simulation.answers]
    assert sorted(samples) == list(range(len(scenario.images)))
    assert scenario.simulation.list_kept_answers() == {}  # everything was confirmed


def list_answered_in_time(scenario, samples, start_s=1.0):
    """List the samples that a node answered by the deadline, in virtual time."""
    deadline = TIMING.deadline_s
    return {
        answer.sample
        for at_s, _, answer in scenario.simulation.answers
        if answer.sample in samples and at_s <= start_s + answer.sample * PERIOD_S + deadline
    }


FAULTS = {
    "one device crashes": [("crash", "cam2")],
    "five devices": [("crash", f"cam{i}") for i in range(1, 4)],
    "a device stalls": [("stall", "cam1")],
    "the edge crashes": [("crash", "edge")],
    "the edge stalls": [("stall", "edge")],
    "the cloud crashes": [("crash", "cloud")],
    "the cloud stalls": [("stall", "cloud")],
    "the broker dies": [("broker", "")],
    "edge and cloud": [("crash", "edge"), ("crash", "cloud")],
    "device, edge stalled, cloud": [("crash", "cam1"), ("stall", "edge"), ("crash", "cloud")],
    "broker and a device": [("broker", ""), ("crash", "cam3")],
}


@pytest.mark.parametrize("letter", ["c", "e", "f"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_sample_is_answered_by_its_deadline(fault, letter):
    """Faults begin at one third and end at two thirds: all samples are answered in time, once."""
    manifest = make_manifest(make_hierarchy(letter))
    sections = make_sections(manifest)
    scenario = build_scenario(manifest, sections, samples=90, network=JITTER)
    simulation = scenario.simulation
    down_s, up_s = 1.0 + 30 * PERIOD_S + 0.013, 1.0 + 60 * PERIOD_S + 0.027
    for what, name in FAULTS[fault]:
        node = f"home/{name}"
        if what == "broker":
            simulation.at(down_s, lambda: simulation.set_broker(False))
            simulation.at(up_s, lambda: simulation.set_broker(True))
        elif what == "crash":
            simulation.at(down_s, lambda node=node: simulation.crash(node))
            simulation.at(up_s, lambda node=node: simulation.start(node))
        else:
            simulation.at(down_s, lambda node=node: simulation.stall(node))
            simulation.at(up_s, lambda node=node: simulation.resume(node))
    scenario.run(settle_s=20.0)
    everything = set(range(90))
    assert list_answered_in_time(scenario, everything) == everything
    assert {sample for _, sample in simulation.store} == everything
    assert simulation.list_kept_answers() == {}
    for sample in [*range(0, 25), *range(80, 90)]:  # before, and after all have rejoined
        answer = simulation.store["home", sample]
        expected = run_undistributed(manifest, sections, scenario.images[sample])
        assert (answer.exit, answer.label, answer.quality) == (
            expected.exit,
            expected.label,
            "full",
        ), sample
    for sample in range(90):  # what was answered without some equals the network without them
        answer = simulation.store["home", sample]
        if answer.exit != "device":
            mask = manifest.hierarchy.make_mask(answer.members)
            exits = run_undistributed(manifest, sections, scenario.images[sample], mask)
            if answer.exit == exits.exit:
                assert answer.probabilities == exits.probabilities


@pytest.mark.parametrize("seed", range(6))
def test_answers_are_correct_with_message_loss_and_random_crashes(seed):
    """Loss, duplicates, reordering and crashes at random events: one stored answer per sample."""
    generator = np.random.default_rng(seed)
    network = Network(latency_s=0.003, jitter_s=0.004, loss=0.03, duplication=0.05, reordering=0.1)
    manifest = make_manifest(make_hierarchy("efc"[seed % 3]))
    sections = make_sections(manifest)
    scenario = build_scenario(manifest, sections, samples=150, seed=seed, network=network)
    simulation = scenario.simulation
    names = ["cam1", "cam2", "cam3", "edge", "cloud"]
    for _ in range(8):
        name = f"home/{names[generator.integers(len(names))]}"
        at_s = 1.0 + generator.random() * 12
        events = int(generator.integers(1, 60))
        simulation.at(at_s, partial(simulation.crash_after, name, events))
        simulation.at(
            at_s + 1 + generator.random() * 2, lambda name=name: restart(simulation, name)
        )
    scenario.run(settle_s=40.0)
    everything = set(range(150))
    assert list_answered_in_time(scenario, everything) == everything
    assert {sample for _, sample in simulation.store} == everything


def restart(simulation, name):
    node = simulation.node(name)
    if node.machine is None:
        simulation.start(name)
    node.crash_after = None


def test_different_clocks_do_not_change_the_answers():
    """Devices whose clocks are hours apart from the edge's."""
    manifest = make_manifest(make_hierarchy("e"))
    scenario = build_scenario(manifest, make_sections(manifest), skew_s=7200.0)
    scenario.run()
    assert all(a.quality == "full" for a in scenario.simulation.store.values())
    assert len(scenario.simulation.store) == len(scenario.images)


def test_same_seed_same_run():
    manifest = make_manifest(make_hierarchy("e"))
    network = Network(loss=0.05, duplication=0.05, reordering=0.1)

    def run():
        scenario = build_scenario(manifest, make_sections(manifest), network=network, samples=30)
        scenario.run()
        return scenario.simulation.answers, scenario.simulation.journal.handled

    assert run() == run()


def test_a_thousand_devices_on_fifty_edges_are_answered():
    """Fifty sites of twenty devices with one cloud: every answer is full and in time."""
    manifest = make_manifest(make_hierarchy("e", 20))
    sites = tuple(f"site{i}" for i in range(50))
    scenario = build_scenario(
        manifest, make_sections(manifest), samples=5, sites=sites, network=JITTER
    )
    scenario.run(sites=sites)
    store = scenario.simulation.store
    assert set(store) == {(site, n) for site in sites for n in range(5)}
    assert {answer.quality for answer in store.values()} == {"full"}
    assert max(answer.latency_s for answer in store.values()) < TIMING.edge_s
