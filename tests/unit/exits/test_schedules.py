"""All machines together under random schedules, in virtual time.

Messages are lost, repeated, delayed and reordered; nodes die and come back; links break; sections
fail; and a stranger publishes arbitrary messages. Whatever happens: no machine raises, no node
answers a sample twice, and every sample that was captured is answered by its deadline.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.core.section import Section
from ddnn.errors import SectionError
from ddnn.exits.cloud_node import CloudNode
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.protocol.codec import encode
from ddnn.protocol.machine import Captured
from ddnn.protocol.messages import (
    MAX_COUNT,
    Answer,
    AnswerAck,
    Backlog,
    Escalate,
    Features,
    Message,
    Scores,
    Status,
    Tensor,
)
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Costs
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from tests.unit.exits.exit_builders import (
    BUNDLE,
    EPOCH_S,
    IMAGE,
    SITE,
    TIMING,
    make_bits,
    make_manifest,
    make_sections,
    make_tensor,
)

PERIOD_S = 0.1
SAMPLES = 25
SETTLE_S = 6.0


class World:
    """A site in the simulation with faults of every kind, and a record of its answers."""

    def __init__(self, letter: Any, seed: int, trouble: float, *, stranger: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.trouble = trouble
        self.manifest = make_manifest(letter, 4, threshold=0.9)
        self.sections = {
            name: self.make_unreliable_section(section)
            for name, section in make_sections(self.manifest).items()
        }
        network = Network(
            latency_s=0.0005,
            jitter_s=trouble * 0.005,
            loss=trouble * 0.16,  # per hop: 0.3 in all
            duplication=trouble * 0.16,
            reordering=trouble * 0.05,
            reorder_s=0.15,
            reliable=False,  # states are lost, too
            will_after_s=0.0,
            will_spread_s=1.5,  # a late Will, at times
        )
        self.simulation = Simulation(np.random.default_rng(seed + 1), network)
        self.captured: dict[tuple[int, str], float] = {}
        self.died: dict[str, list[float]] = defaultdict(list)
        hierarchy = self.manifest.hierarchy
        self.devices = hierarchy.devices
        self.edges = [group.id for group in hierarchy.edges]
        for node in (*self.devices, *self.edges, "cloud"):
            self.add(node)
        for n in range(SAMPLES):
            for device in self.devices:
                self.call_at(1 + n * PERIOD_S, lambda n=n, d=device: self.capture(n, d))
        if stranger:
            for time_s in self.random.uniform(0.5, 1 + SAMPLES * PERIOD_S, 150):
                self.call_at(float(time_s), self.stranger_publishes)

    # ----------------------------------------------------------------- running

    def add(self, node: str) -> None:
        role: Any = "cloud" if node == "cloud" else "edge" if node in self.edges else "device"
        make = {"cloud": CloudNode, "edge": EdgeNode, "device": DeviceNode}[role]
        # Nothing of a former life: what a disk brings back is answered again.
        self.simulation.add(
            Identity(SITE, node, role, BUNDLE, ""),
            lambda pending: make(SITE, node, BUNDLE, self.manifest, TIMING),
            self.sections,
            costs=Costs(any_section_s=float(self.random.uniform(0, 0.03))),
            wall_offset_s=EPOCH_S - Simulation.WALL_S,
        )

    def make_unreliable_section(self, section: Section) -> Any:
        def run(inputs: Any) -> Any:
            if self.random.random() < 0.2 * self.trouble:
                raise SectionError("failed")
            return section(inputs)

        return run

    @property
    def now_s(self) -> float:
        return self.simulation.now_s

    @property
    def answers(self) -> dict[int, list[tuple[float, str, Answer]]]:
        """By sample: the time, the node and the answer."""
        given: dict[int, list[tuple[float, str, Answer]]] = defaultdict(list)
        for at_s, name, answer in self.simulation.answers:
            given[answer.sample].append((at_s, name.partition("/")[2], answer))
        return given

    def call_at(self, time_s: float, action: Any) -> None:
        self.simulation.at(time_s, action)

    def run(self) -> None:
        self.simulation.run(1 + SAMPLES * PERIOD_S + SETTLE_S)
        assert self.simulation.failures == []

    def capture(self, sample: int, device: str) -> None:
        if self.simulation.machine(f"{SITE}/{device}") is not None:
            self.captured[sample, device] = self.now_s
            image = self.random.integers(0, 256, IMAGE).astype(np.uint8)
            frame = Captured(sample, EPOCH_S + self.now_s, {"image": image}, sample % 3)
            self.simulation.capture(f"{SITE}/{device}", frame)

    # ----------------------------------------------------------------- trouble

    def connect(self, node: str) -> None:
        self.simulation.connect(f"{SITE}/{node}")

    def disconnect(self, node: str) -> None:
        self.simulation.disconnect(f"{SITE}/{node}")

    def kill(self, node: str) -> None:
        if self.simulation.machine(f"{SITE}/{node}") is not None:
            self.died[node].append(self.now_s)
            self.simulation.crash(f"{SITE}/{node}")

    def restart(self, node: str) -> None:
        if self.simulation.machine(f"{SITE}/{node}") is None:
            self.simulation.start(f"{SITE}/{node}")

    def stranger_publishes(self) -> None:
        """Publish a valid message of any kind but an answer, in any node's name."""
        pick = self.random.choice
        nodes = [*self.devices, *self.edges, "cloud", "x"]
        node = str(pick(nodes))
        passed = int((self.now_s - 1) / PERIOD_S)
        sample = int(pick([max(passed, 0), max(passed - 1, 0), 3, MAX_COUNT]))
        members = int(pick([0, 1, 2, 4, 8, 15, 2**62 - 1]))
        captured_at_s = float(pick([EPOCH_S + self.now_s, EPOCH_S, 1e12, -1e12, 0.0]))
        bundle = str(pick([BUNDLE, BUNDLE, "b2"]))
        traffic = (MAX_COUNT, MAX_COUNT)
        tensors = [
            make_tensor(9, 0, 0),
            make_tensor(0, 0, 0),
            make_tensor(np.nan, 0, 0),
            make_tensor(3e38, -3e38, 3e38),
            make_tensor(1e9, -1e9, 1e9),
            make_tensor(1, 2),
            make_tensor(1, 2, 3, dtype=np.uint8),
            make_tensor(1, 2, 3, dtype=np.float16),
            Tensor.of(np.ones((0, 3), np.float32)),
        ]
        parts = [
            (),
            (make_bits(),),
            (make_bits((2, 2, 2)),),
            (make_bits(),) * 4,
            (make_bits((0, 4)),),
            (Tensor.of(np.zeros(IMAGE, np.uint8)),),
            (make_bits((2, 2, 2)), make_bits()),
        ]
        scores = Scores(
            1,
            sample,
            bundle,
            members,
            captured_at_s,
            tensors[self.random.integers(len(tensors))],
            2,
            traffic,
        )
        features = Features(
            1,
            sample,
            bundle,
            members,
            captured_at_s,
            parts[self.random.integers(len(parts))],
            65535,
            traffic,
        )
        state: Any = str(pick(["online", "lost", "stopped"]))
        role: Any = str(pick(["device", "edge", "cloud", "worker"]))
        tier: Any = str(pick(["local", "edge"]))
        answer = Answer(
            sample,
            str(pick(nodes)),
            "device",
            -1,
            [],
            1e300,
            ["x"],
            [],
            "full",
            None,
            "?" * 16,
            0.0,
            0.0,
            0.0,
        )
        choices: list[tuple[Kind, Message]] = [
            (Kind.SCORES, scores),
            (Kind.VERDICT, scores),
            (Kind.FEATURES, features),
            (Kind.UPLINK, features),
            (Kind.ESCALATE, Escalate(1, sample, bundle, tier)),
            (Kind.STATUS, Status(role, int(pick([0, 1, 99])), state)),
            (Kind.ANSWER, answer),
            (Kind.BACKLOG, Backlog([answer])),
            (Kind.ACK, AnswerAck([sample])),
        ]
        kind, message = choices[self.random.integers(len(choices))]
        topic = Topic(SITE, kind, node if kind.value.per_node else "")
        self.simulation.publish(topic, message)

    # ---------------------------------------------------------------- the claim

    def check(self, *, stranger: bool) -> None:
        for sample, given_ in self.answers.items():
            by_life = [
                (node, sum(death <= at_s for death in self.died[node])) for at_s, node, _ in given_
            ]
            assert len(set(by_life)) == len(by_life), f"sample {sample}: answered twice"
        for (sample, device), at_s in self.captured.items():
            limit_s = at_s + TIMING.deadline_s
            if any(at_s <= death <= limit_s for death in self.died[device]):
                continue  # a dead device owes nothing; the others that saw it do
            times = [time_s for time_s, _, _ in self.answers[sample]]
            assert times, f"sample {sample}: no answer"
            assert min(times) <= limit_s + 1e-9, f"sample {sample}: too late"
            if not stranger:  # a lie about the time of capture can make the edge late, not alone
                assert (
                    max(times) <= max(self.list_capture_times_s(sample)) + TIMING.deadline_s + 1e-9
                )
        for node in (*self.devices, *self.edges, "cloud"):
            machine = self.simulation.machine(f"{SITE}/{node}")
            for name, number in (machine.counts if machine else {}).items():
                assert number >= 0, name
            part: Any
            for part in (
                machine,
                getattr(machine, "exits", None),
                getattr(machine, "fusion", None),
            ):
                for jobs in ("_samples", "_decisions", "_collector", "_running"):
                    open_jobs = getattr(part, jobs, None)
                    assert open_jobs is None or len(open_jobs) == 0  # nothing is left behind

    def list_capture_times_s(self, sample: int) -> list[float]:
        return [at_s for (n, _), at_s in self.captured.items() if n == sample]


NODES = ["cam1", "cam2", "cam3", "cam4", "edge", "edge2", "cloud"]
FAULTS = st.lists(
    st.tuples(
        st.floats(0.2, 3.5),
        st.sampled_from(["kill", "restart", "disconnect", "connect"]),
        st.sampled_from(NODES),
    ),
    max_size=8,
)


def run_schedule(letter: str, seed: int, trouble: float, faults: Any, *, stranger: bool) -> World:
    world = World(letter, seed, trouble, stranger=stranger)
    known = {*world.devices, *world.edges, "cloud"}
    for time_s, what, node in faults:
        if node in known:
            world.call_at(time_s, lambda what=what, node=node: getattr(world, what)(node))
    world.run()
    world.check(stranger=stranger)
    return world


@settings(max_examples=60, deadline=None)
@given(
    letter=st.sampled_from("abcdef"),
    seed=st.integers(0, 2**32 - 1),
    trouble=st.sampled_from([0.0, 0.3, 1.0]),
    faults=FAULTS,
)
def test_every_sample_is_answered_once_and_in_time(
    letter: str, seed: int, trouble: float, faults: Any
) -> None:
    run_schedule(letter, seed, trouble, faults, stranger=False)


@settings(max_examples=60, deadline=None)
@given(
    letter=st.sampled_from("abcdef"),
    seed=st.integers(0, 2**32 - 1),
    trouble=st.sampled_from([0.0, 0.3, 1.0]),
    faults=FAULTS,
)
def test_every_sample_is_answered_despite_messages_of_strangers(
    letter: str, seed: int, trouble: float, faults: Any
) -> None:
    run_schedule(letter, seed, trouble, faults, stranger=True)


@pytest.mark.parametrize("letter", "abcdef")
def test_without_faults_the_lead_answers_every_sample_with_all_members(letter: str) -> None:
    world = run_schedule(letter, 1, 0.0, [], stranger=False)
    assert set(world.answers) == set(range(SAMPLES))
    exits = set()
    for given_ in world.answers.values():
        ((_, node, answer),) = given_
        assert (node, answer.quality, answer.missing) == ("edge", "full", [])
        assert msgspec.json.decode(encode(answer), type=Answer) == answer
        exits.add(answer.exit)
    assert exits <= set(world.manifest.hierarchy.exits)
    assert letter == "a" or len(exits) > 1  # the threshold separates


@pytest.mark.parametrize("letter", "bcdef")
def test_without_an_edge_one_device_answers_every_sample(letter: str) -> None:
    world = run_schedule(letter, 1, 0.0, [(0.5, "kill", "edge")], stranger=False)
    for sample in range(SAMPLES):
        [(_, node, answer)] = world.answers[sample]
        assert node in world.devices
        assert answer.quality == "degraded"
