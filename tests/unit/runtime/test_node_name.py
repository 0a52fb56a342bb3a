"""Two processes of one node's name: the older one keeps it, however their messages cross."""

from __future__ import annotations

from collections import deque

import pytest

from ddnn.errors import ConfigError, LocalProtocolError
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Status
from ddnn.protocol.node_messages import NameClaim
from ddnn.protocol.topics import Kind
from ddnn.runtime import name as module
from ddnn.runtime.name import ANSWER_S, MAX_CLAIMS, NodeName, Signal, State


class Process:
    """A process that uses a name, and the claims on their way to it."""

    def __init__(self, instance: int, started_s: float) -> None:
        self.name = NodeName("home", "cam1", instance, started_s)
        self.inbox: deque[tuple[float, NameClaim]] = deque()
        self.withdrawn = ""

    def take(self, claim: NameClaim, now_s: float) -> bool:
        try:
            return self.name.take_claim(claim, now_s)
        except ConfigError as error:
            self.withdrawn = str(error)
            return False


def status(instance: int, state: str = "online") -> Status:
    return Status("device", 5, state, "b1", "0", instance)  # type: ignore[arg-type]


def claim_of(name: NodeName, now_s: float) -> NameClaim:
    packet = name.make_claim(now_s)
    assert packet is not None
    message = decode(Kind.CLAIM, packet.payload)
    assert isinstance(message, NameClaim)
    return message


def test_a_node_that_is_alone_has_its_name_at_once() -> None:
    name = NodeName("home", "cam1", 7, 0.0)
    assert name.filters == ["ddnn/v1/home/node/cam1/status", "ddnn/v1/home/node/cam1/claim"]
    name.connect(1.0)
    name.take_status(status(3, "lost"))  # its former process
    name.take_status(status(7))
    assert not name.take_claim(NameClaim(7, 1.0), 1.0)
    assert name.is_held
    assert name.deadline_s is None
    assert name.claim_is_back


def test_a_node_is_not_refused_where_its_former_process_still_counts_as_online() -> None:
    """After a power failure, until the broker misses the old connection."""
    name = NodeName("home", "cam1", 7, 0.0)
    name.connect(1.0)
    name.take_status(status(3))
    name.take_claim(NameClaim(7, 1.0), 1.0)
    assert not name.is_held
    assert not name.tick(1.0 + ANSWER_S - 0.1)
    assert name.tick(1.0 + ANSWER_S)
    assert name.is_held
    assert name.claim_is_back


def test_a_node_that_cannot_read_its_claims_starts_nevertheless() -> None:
    name = NodeName("home", "cam1", 7, 0.0)
    name.connect(1.0)
    assert name.tick(1.0 + ANSWER_S)
    assert name.is_held
    assert not name.claim_is_back


def test_a_lost_connection_begins_the_claim_again() -> None:
    name = NodeName("home", "cam1", 7, 0.0)
    name.connect(1.0)
    name.take_status(status(3))
    name.disconnect()
    assert name.deadline_s is None
    name.connect(5.0)
    name.take_claim(NameClaim(7, 5.0), 5.0)
    assert name.is_held
    name.disconnect()
    name.connect(9.0)  # what it has it keeps
    assert name.is_held


@pytest.mark.parametrize("apart_s", [0.0, 0.001, 0.5, 1.9, 9.0, 11.0, 1e5])
@pytest.mark.parametrize("delay_s", [0.001, 0.3])
@pytest.mark.parametrize("instances", [(1, 2), (2, 1)])
@pytest.mark.parametrize("first", [0, 1])
def test_exactly_one_of_two_withdraws(
    apart_s: float, delay_s: float, instances: tuple[int, int], first: int
) -> None:
    older, newer = Process(instances[0], 0.0), Process(instances[1], apart_s)
    pair, now_s = [older, newer], apart_s + 1.0
    order = pair if first == 0 else pair[::-1]

    def publish(process: Process) -> None:
        claim = claim_of(process.name, now_s)
        for each in pair:
            each.inbox.append((now_s + delay_s, claim))

    for process in order:  # a broker that comes back: both connect at almost the same time
        process.name.connect(now_s)
        publish(process)
        now_s += 0.0001
    for _ in range(20):
        for process in order:
            due = [claim for at_s, claim in process.inbox if at_s <= now_s]
            process.inbox = deque(item for item in process.inbox if item[0] > now_s)
            for claim in due:
                if not process.withdrawn and process.take(claim, now_s):
                    publish(process)
        now_s += delay_s
    assert [bool(process.withdrawn) for process in pair].count(True) == 1
    if apart_s > delay_s:
        assert "another process is node cam1 of site home" in newer.withdrawn
    assert all(not process.inbox for process in pair if not process.withdrawn)


def test_the_older_one_is_not_talked_out_of_its_name() -> None:
    """By a process that does not hear it."""
    name = NodeName("home", "cam1", 1, 0.0)
    name.connect(0.0)
    name.take_claim(NameClaim(1, 0.0), 0.0)
    for _ in range(10 * MAX_CLAIMS):
        assert name.take_claim(NameClaim(2, 5.0), 3600.0)
    assert name.is_held


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("signal", Signal)
def test_forbidden_transitions_raise(state: State, signal: Signal) -> None:
    name = NodeName("home", "cam1", 7, 0.0)
    name.state = state
    if (state, signal) in module.TRANSITIONS:
        name._take(signal)
        assert name.state is module.TRANSITIONS[state, signal]
    else:
        with pytest.raises(LocalProtocolError, match="is not possible"):
            name._take(signal)
