"""Latency under load and on slow links equals the times that the profiles give."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest

from ddnn.core.device import DeviceProfile
from ddnn.protocol.codec import encode, publish_bytes
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Effect,
    Event,
    Log,
    Now,
    Publish,
    Received,
)
from ddnn.protocol.messages import Scores, Tensor
from ddnn.protocol.topics import Kind, Topic, topic_filter
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Cores, Costs
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from tests.simulation.scenario import PERIOD_S, TIMING, build_scenario
from tests.simulation.small_hierarchy import BUNDLE, make_hierarchy, make_manifest, make_sections

HOP_S = 0.25
NETWORK = Network(latency_s=HOP_S, jitter_s=0.0)
TOPIC = Topic("home", Kind.SCORES, "cam1")
WIDTH = 1000
SCORES = Scores(1, 7, "ab12cd34", 1, 1.0, Tensor.of(np.zeros(WIDTH, np.float32)))
BYTES = publish_bytes(str(TOPIC), len(encode(SCORES)))
START_S = 10.0


def profile(name: str, uplink: float = 1e12, downlink: float = 1e12, flops: float = 1e9):
    return DeviceProfile(
        name=name,
        flops_per_s=flops,
        memory_bytes=2**30,
        uplink_bits_per_s=uplink,
        downlink_bits_per_s=downlink,
    )


class Scripted:
    """A machine that returns the effects that a test gives, and records when each event arrives."""

    counts: ClassVar = {}
    gauges: ClassVar = {}

    def __init__(
        self, react: Callable[[Event], list[Effect]] = lambda event: [], filters: tuple = ()
    ) -> None:
        self.react, self.filters = react, filters
        self.seen: list[tuple[float, Event]] = []

    def handle(self, event: Event, now: Now) -> list[Effect]:
        self.seen.append((now.monotonic_s, event))
        return self.react(event)

    def deadline_s(self) -> None:
        return None

    def subscriptions(self) -> list[str]:
        return list(self.filters)

    def times(self, kind: type) -> list[float]:
        return [at_s for at_s, event in self.seen if isinstance(event, kind)]


def send(event: Event) -> list[Effect]:
    return [Publish(TOPIC, SCORES)] if isinstance(event, Captured) else []


def compute(event: Event) -> list[Effect]:
    if not isinstance(event, Captured):
        return []
    return [Compute(("job", event.sample), "section", {"x": np.ones(1)})]


class Pair:
    """A scripted node, and one that receives its scores."""

    def __init__(self, react: Callable[[Event], list[Effect]], **options) -> None:
        self.simulation = Simulation(np.random.default_rng(1), NETWORK)
        self.sender = Scripted(react)
        self.receiver = Scripted(filters=(topic_filter(Kind.SCORES, "home"),))
        to_receiver = {key: options.pop(key) for key in ("downlink", "receive_s") if key in options}
        sections = {"section": lambda inputs: dict(inputs)}
        self.name = self.simulation.add(
            Identity("home", "cam1", "device", "ab12cd34", ""),
            lambda pending: self.sender,
            sections,
            **options,
        )
        self.simulation.add(
            Identity("home", "edge", "edge", "ab12cd34", ""),
            lambda pending: self.receiver,
            device=profile("edge", downlink=to_receiver.get("downlink", 1e12)),
            costs=Costs(receive_s=to_receiver.get("receive_s", 0.0)),
        )

    def run(self, samples: int, period_s: float = 0.0) -> list[float]:
        """Capture frames from START_S on; return when their scores were handled, relative to it."""
        for n in range(samples):
            frame = Captured(n, 0.0, {})
            self.simulation.at(
                START_S + n * period_s, lambda f=frame: self.simulation.capture(self.name, f)
            )
        self.simulation.run(1e4)
        assert self.simulation.failures == []
        return [at_s - START_S for at_s in self.receiver.times(Received)]


def test_without_profiles_only_the_hops_take_time() -> None:
    np.testing.assert_allclose(Pair(send).run(3), [2 * HOP_S] * 3, atol=1e-6)


def test_bytes_queue_and_take_their_bits_divided_by_the_link_rate() -> None:
    rate = 8.0 * BYTES  # one message takes one second
    up = Pair(send, device=profile("slow", uplink=rate)).run(3)
    np.testing.assert_allclose(up, [2 * HOP_S + n for n in (1, 2, 3)], atol=1e-6)
    down = Pair(send, downlink=rate / 2).run(3)
    np.testing.assert_allclose(down, [2 * HOP_S + 2 * n for n in (1, 2, 3)], atol=1e-6)
    both = Pair(send, device=profile("slow", uplink=rate), downlink=rate / 2).run(3)
    np.testing.assert_allclose(both, [2 * HOP_S + 1 + 2 * n for n in (1, 2, 3)], atol=1e-6)


def test_queued_messages_of_a_node_that_dies_are_lost() -> None:
    pair = Pair(send, device=profile("slow", uplink=8.0 * BYTES))
    pair.simulation.at(START_S + 1.5, lambda: pair.simulation.crash(pair.name))
    np.testing.assert_allclose(pair.run(3), [2 * HOP_S + 1], atol=1e-6)


def test_two_tasks_on_one_lane_take_the_sum_of_their_times() -> None:
    pair = Pair(compute, costs=Costs(section_s={"section": 2.0}))
    pair.run(3)
    assert pair.sender.times(Computed) == [START_S + 2.0, START_S + 4.0, START_S + 6.0]


def test_a_section_takes_its_flops_divided_by_the_device_speed() -> None:
    costs = Costs(section_flops={"section": 3e9})
    pair = Pair(compute, device=profile("pi", flops=2e9), costs=costs)
    pair.run(2)
    assert pair.sender.times(Computed) == [START_S + 1.5, START_S + 3.0]


def test_messages_take_time_of_their_sender_and_receiver() -> None:
    # In powers of two, so that sums are exact.
    costs = Costs(receive_s=0.5, send_s=0.25)
    pair = Pair(send, costs=costs, receive_s=0.125)
    times = pair.run(2)
    # both frames are there at once: 0.5 s each to take in, then 0.25 s each to send
    first, second = 1.0 + 0.25, 1.0 + 0.5
    expected = [2 * HOP_S + 0.125 + sent for sent in (first, second)]
    np.testing.assert_allclose(times, expected, atol=1e-6)


def test_messages_are_handled_while_a_slow_section_runs() -> None:
    """As in the loop, which hands slow sections to another thread."""

    def react(event: Event) -> list[Effect]:
        return compute(event) if isinstance(event, Captured) and event.sample == 0 else send(event)

    pair = Pair(react, costs=Costs(section_s={"section": 5.0}, receive_s=0.5))
    np.testing.assert_allclose(pair.run(2, period_s=1.0), [1.0 + 0.5 + 2 * HOP_S], atol=1e-6)
    assert pair.sender.times(Computed) == [START_S + 0.5 + 5.0 + 0.5]  # interrupted for 0.5 s


def test_nodes_of_one_computer_share_its_cores() -> None:
    simulation = Simulation(np.random.default_rng(1), NETWORK)
    cores, nodes = Cores(2), [Scripted(compute) for _ in range(6)]
    for i, node in enumerate(nodes):
        name = simulation.add(
            Identity("home", f"cam{i + 1}", "device", "ab12cd34", ""),
            lambda pending, node=node: node,
            {"section": lambda inputs: dict(inputs)},
            costs=Costs(section_s={"section": 1.0}),
            cores=cores,
        )
        simulation.at(START_S, lambda name=name: simulation.capture(name, Captured(1, 0.0, {})))
    simulation.run(1e3)
    ended_s = sorted(node.times(Computed)[0] - START_S for node in nodes)
    assert ended_s == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_a_section_that_raises_is_reported_to_the_machine() -> None:
    pair = Pair(compute)
    pair.simulation.node(pair.name).sections = {}
    pair.run(1)
    assert pair.sender.seen[-1][1] == Computed(("job", 0), None)
    (_, name, line) = pair.simulation.journal.logs[-1]
    assert (name, line.level) == ("home/cam1", "error")


def test_the_log_of_a_machine_is_in_the_journal() -> None:
    line = Log("info", "%s is %s", ("worker1", "live"))
    pair = Pair(lambda event: [line] if isinstance(event, Captured) else [])
    pair.run(1)
    assert pair.simulation.journal.logs == [(START_S, "home/cam1", line)]


@pytest.mark.parametrize("letter", ["c", "e"])
def test_slow_links_and_cpus_delay_every_answer(letter) -> None:
    """Answers are equal; each exit is later by at least the time of its messages and sections."""
    manifest = make_manifest(make_hierarchy(letter))
    sections = make_sections(manifest)
    plain = build_scenario(manifest, sections, network=Network(jitter_s=0.0))
    slow = build_scenario(
        manifest,
        sections,
        network=Network(jitter_s=0.0),
        device=profile("pi", uplink=1e6, downlink=1e6),
        costs=Costs(any_section_s=0.001, receive_s=0.001, send_s=0.001),
    )
    given_s = []
    for scenario in (plain, slow):
        scenario.run()
        given_s.append({answer.sample: at_s for at_s, _, answer in scenario.simulation.answers})
    for sample in range(len(plain.images)):
        fast, late = (s.simulation.store["home", sample] for s in (plain, slow))
        assert (fast.exit, fast.label, late.quality) == (late.exit, late.label, "full")
        # a frame, a section, a message out, one from each device in
        assert given_s[1][sample] - given_s[0][sample] > 0.004
        assert late.latency_s < TIMING.deadline_s


def test_samples_are_answered_without_a_device_that_is_too_slow() -> None:
    """Its section takes longer than the period; the wait for it ends with the window."""
    manifest = make_manifest(make_hierarchy("e"))
    scenario = build_scenario(manifest, make_sections(manifest), samples=60)
    lagging = manifest.hierarchy.devices[0]
    scenario.simulation.node(f"home/{lagging}").costs = Costs(any_section_s=4 * PERIOD_S)
    scenario.run(settle_s=40.0)
    store = scenario.simulation.store
    assert {sample for _, sample in store} == set(range(60))
    late = [store["home", sample] for sample in range(20, 60)]
    assert all(lagging in answer.missing for answer in late)
    assert all(answer.latency_s <= TIMING.deadline_s for answer in late)
    assert all(answer.bundle == BUNDLE for answer in late)
