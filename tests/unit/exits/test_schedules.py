"""All machines together under schedules that nobody would have thought of, in virtual time.

Messages are lost, repeated, delayed and reordered; nodes die and come back; links break; sections
fail; and a stranger publishes whatever it likes. However that goes: no machine raises, nobody
answers a sample twice, and every sample that was captured is answered by its deadline.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from itertools import count
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.exits.cloud_node import CloudNode
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Event,
    Keep,
    Machine,
    Now,
    Publish,
    Received,
    Save,
    Saved,
    Tick,
)
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
from tests.unit.exits.exit_builders import (
    BUNDLE,
    EPOCH_S,
    IMAGE,
    SITE,
    TIMING,
    bits,
    manifest_of,
    sections_of,
    vector,
)

PERIOD_S = 0.1
SAMPLES = 25
SETTLE_S = 6.0


def matches(wanted: list[str], topic: list[str]) -> bool:
    return len(wanted) == len(topic) and all(
        w in ("+", t) for w, t in zip(wanted, topic, strict=True)
    )


class World:
    """A heap of things to come, and what was answered when."""

    def __init__(self, letter: Any, seed: int, trouble: float, *, stranger: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.trouble = trouble
        self.manifest = manifest_of(letter, 4, threshold=0.9)
        self.sections = sections_of(self.manifest)
        self.now_s = 0.0
        self.order = count()
        self.heap: list[tuple[float, int, Any]] = []
        self.machines: dict[str, Machine] = {}
        self.filters: dict[str, list[list[str]]] = {}
        self.session: dict[str, int] = {}  # of the nodes that are connected
        self.ticks: dict[str, float | None] = {}
        self.retained: dict[str, tuple[Topic, bytes]] = {}
        self.answers: dict[int, list[tuple[float, str, Answer]]] = defaultdict(list)
        self.captured: dict[tuple[int, str], float] = {}
        self.died: dict[str, list[float]] = defaultdict(list)
        self.sessions = count(1)
        hierarchy = self.manifest.hierarchy
        self.devices = hierarchy.devices
        self.edges = [group.id for group in hierarchy.edges]
        for node in (*self.devices, *self.edges, "cloud"):
            self.start(node)
        for n in range(SAMPLES):
            for device in self.devices:
                self.later(1 + n * PERIOD_S, lambda n=n, d=device: self.capture(n, d))
        if stranger:
            for time_s in self.random.uniform(0.5, 1 + SAMPLES * PERIOD_S, 150):
                self.later(float(time_s), self.stranger_publishes)

    # ----------------------------------------------------------------- running

    def later(self, time_s: float, action: Any) -> None:
        heapq.heappush(self.heap, (time_s, next(self.order), action))

    def run(self) -> None:
        until_s = 1 + SAMPLES * PERIOD_S + SETTLE_S
        while self.heap and self.heap[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self.heap)
            action()

    def tell(self, node: str, event: Event) -> None:
        machine = self.machines.get(node)
        if machine is None:
            return
        effects = machine.handle(event, Now(self.now_s, EPOCH_S + self.now_s))
        due_s = machine.deadline_s()
        if due_s is not None and due_s != self.ticks.get(node):
            self.ticks[node] = due_s
            self.later(max(due_s, self.now_s), lambda: self.tick(node, due_s))
        for effect in effects:
            self.perform(node, effect)

    def tick(self, node: str, due_s: float) -> None:
        if self.ticks.get(node) == due_s:
            self.ticks[node] = None
            self.tell(node, Tick())

    def perform(self, node: str, effect: Effect) -> None:
        machine = self.machines[node]

        def back(after_s: float, event: Event) -> None:
            """Only to the process that asked."""
            self.later(
                self.now_s + after_s,
                lambda: self.tell(node, event) if self.machines.get(node) is machine else None,
            )

        match effect:
            case Publish(topic, message):
                if node in self.session:
                    self.publish(topic, message)
            case Compute(job, section, inputs):
                failed = self.chance(0.2)
                outputs = None if failed else self.sections[section](inputs)
                back(float(self.random.uniform(0, 0.03)), Computed(job, outputs))
            case Keep(answer):
                self.answers[answer.sample].append((self.now_s, node, answer))
            case Save(answers):
                back(0.03, Saved(answers))

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share * self.trouble)

    def publish(self, topic: Topic, message: Message) -> None:
        data = encode(message)
        text = str(topic)
        if topic.kind.value.retain:
            self.retained[text] = (topic, data)
        parts = text.split("/")
        for node, filters in self.filters.items():
            if any(matches(wanted, parts) for wanted in filters):
                for _ in range(1 + self.chance(0.3)):
                    if not self.chance(0.3):
                        self.deliver(node, topic, data)

    def deliver(self, node: str, topic: Topic, data: bytes) -> None:
        delay_s = 0.001 + self.trouble * float(self.random.exponential(0.01))
        if self.chance(0.1):
            delay_s += 0.15
        session = self.session.get(node)

        def arrive() -> None:
            if self.session.get(node) == session:
                # everything that is sent can be read: decode raises otherwise
                self.tell(node, Received(topic, decode(topic.kind, data), len(data) + 40))

        self.later(self.now_s + delay_s, arrive)

    def capture(self, sample: int, device: str) -> None:
        if device in self.machines:
            self.captured[sample, device] = self.now_s
            image = self.random.integers(0, 256, IMAGE).astype(np.uint8)
            frame = Captured(sample, EPOCH_S + self.now_s, {"image": image}, sample % 3)
            self.tell(device, frame)

    # ----------------------------------------------------------------- trouble

    def start(self, node: str) -> None:
        arguments = (SITE, node, BUNDLE, self.manifest, TIMING)
        if node == "cloud":
            self.machines[node] = CloudNode(*arguments)
        else:
            self.machines[node] = (EdgeNode if node in self.edges else DeviceNode)(*arguments)
        self.ticks[node] = None
        self.connect(node)

    def connect(self, node: str) -> None:
        if node in self.session or node not in self.machines:
            return
        self.session[node] = next(self.sessions)
        filters = self.machines[node].subscriptions()
        self.filters[node] = [text.split("/") for text in filters]
        self.announce(node, "online", self.session[node])
        self.tell(node, Connected())
        for topic, data in list(self.retained.values()):
            if any(matches(wanted, str(topic).split("/")) for wanted in self.filters[node]):
                self.deliver(node, topic, data)

    def announce(self, node: str, state: Any, session: int) -> None:
        role: Any = "cloud" if node == "cloud" else "edge" if node in self.edges else "device"
        self.publish(Topic(SITE, Kind.STATUS, node), Status(role, session, state, BUNDLE))

    def disconnect(self, node: str) -> None:
        session = self.session.pop(node, None)
        self.filters.pop(node, None)
        if session is not None:
            will_s = self.now_s + float(self.random.uniform(0, 1.5))  # a late Will, at times
            self.later(will_s, lambda: self.announce(node, "lost", session))
            self.tell(node, Disconnected())

    def kill(self, node: str) -> None:
        if self.machines.pop(node, None) is not None:
            self.died[node].append(self.now_s)
            self.disconnect(node)

    def restart(self, node: str) -> None:
        if node not in self.machines:
            self.start(node)

    def stranger_publishes(self) -> None:
        """A well-formed message of any kind but a result, in anybody's name, replays included."""
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
            vector(9, 0, 0),
            vector(0, 0, 0),
            vector(np.nan, 0, 0),
            vector(3e38, -3e38, 3e38),
            vector(1e9, -1e9, 1e9),
            vector(1, 2),
            vector(1, 2, 3, dtype=np.uint8),
            vector(1, 2, 3, dtype=np.float16),
            Tensor.of(np.ones((0, 3), np.float32)),
        ]
        parts = [
            (),
            (bits(),),
            (bits((2, 2, 2)),),
            (bits(),) * 4,
            (bits((0, 4)),),
            (Tensor.of(np.zeros(IMAGE, np.uint8)),),
            (bits((2, 2, 2)), bits()),
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
        self.publish(Topic(SITE, kind, node if kind.value.per_node else ""), message)

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
                assert max(times) <= max(self.captured_at(sample)) + TIMING.deadline_s + 1e-9
        for machine in self.machines.values():
            for name, number in machine.counts.items():
                assert number >= 0, name
            part: Any
            for part in (
                machine,
                getattr(machine, "exits", None),
                getattr(machine, "fusion", None),
            ):
                for jobs in ("_samples", "_jobs"):
                    open_jobs = getattr(part, jobs, None)
                    assert open_jobs is None or len(open_jobs) == 0  # nothing is left behind

    def captured_at(self, sample: int) -> list[float]:
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


def play(letter: str, seed: int, trouble: float, faults: Any, *, stranger: bool) -> World:
    world = World(letter, seed, trouble, stranger=stranger)
    known = {*world.devices, *world.edges, "cloud"}
    for time_s, what, node in faults:
        if node in known:
            world.later(time_s, lambda what=what, node=node: getattr(world, what)(node))
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
    play(letter, seed, trouble, faults, stranger=False)


@settings(max_examples=60, deadline=None)
@given(
    letter=st.sampled_from("abcdef"),
    seed=st.integers(0, 2**32 - 1),
    trouble=st.sampled_from([0.0, 0.3, 1.0]),
    faults=FAULTS,
)
def test_whatever_a_stranger_publishes(letter: str, seed: int, trouble: float, faults: Any) -> None:
    play(letter, seed, trouble, faults, stranger=True)


@pytest.mark.parametrize("letter", "abcdef")
def test_without_trouble_the_lead_answers_everything_with_everyone(letter: str) -> None:
    world = play(letter, 1, 0.0, [], stranger=False)
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
def test_without_an_edge_every_device_answers_everything(letter: str) -> None:
    world = play(letter, 1, 0.0, [(0.5, "kill", "edge")], stranger=False)
    for sample in range(SAMPLES):
        by = sorted(node for _, node, _ in world.answers[sample])
        assert by == sorted(world.devices)
