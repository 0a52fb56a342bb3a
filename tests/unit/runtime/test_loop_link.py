"""The loop and its broker: presence, messages that arrive, messages of other threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ddnn.errors import ConfigError, LinkError, LocalProtocolError
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import Connected, Disconnected, Forgotten, Publish, Received, Saved
from ddnn.protocol.messages import Escalate, Status, Thresholds
from ddnn.protocol.node_messages import NameClaim
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime import loop as module
from ddnn.runtime.loop import TRANSITIONS, LoopState, State
from ddnn.runtime.transport import Arrived, LinkDown, LinkUp
from tests.unit.runtime.driven_node import ANSWER, IN_TIME_S, ME, SCORES, STATUS, DrivenNode

# -------------------------------------------------------------------- the link


def test_every_connection_is_announced_and_subscribed(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node().start()
    topic, payload = node.transport.will(9)
    assert topic == STATUS
    assert decode(Kind.STATUS, payload) == Status("device", 9, "lost", "ab12cd34", "0")
    for session in (9, 10):
        node.transport.deliver(LinkUp(session))
        node.settle()
        assert node.transport.list_statuses()[-1] == Status(
            "device", session, "online", "ab12cd34", "0"
        )
        assert node.transport.published[-1][2:] == (1, True)
        node.transport.deliver(LinkDown("gone"))
        node.settle()
    assert node.transport.filters == [["a/#", "b/#"]] * 2
    kinds = [type(e) for e, _ in node.machine.events if not isinstance(e, Saved)]
    assert kinds == [Connected, Disconnected] * 2
    assert {thread for _, thread in node.machine.events} == {"machine"}


def test_a_will_of_an_older_connection_is_corrected(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node().start()
    node.transport.deliver(LinkUp(2))
    node.settle()
    me = Status("device", 2, "online", "ab12cd34", "0")

    def list_corrections(state: str, session: int) -> list[Status]:
        node.transport.published.clear()
        status = Status("device", session, state, "ab12cd34", "0")
        node.transport.deliver(Arrived(STATUS, encode(status)))
        node.settle()
        return node.transport.list_statuses()

    assert list_corrections("lost", 1) == [me]
    assert list_corrections("stopped", 1) == [me]
    assert list_corrections("online", 2) == []
    assert list_corrections("lost", 2) == []  # of this connection, whose end is noticed next
    assert list_corrections("online", 1) == []  # or two nodes of one name would never stop
    node.transport.deliver(LinkDown("gone"))
    assert list_corrections("lost", 1) == []


def test_close_publishes_the_status_stopped(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node().start()
    node.transport.deliver(LinkUp(77))
    node.settle()
    node.loop.close()
    assert node.loop.join(IN_TIME_S)
    assert node.transport.last_words is not None
    topic, payload = node.transport.last_words
    assert topic == STATUS
    assert decode(Kind.STATUS, payload) == Status("device", 77, "stopped", "ab12cd34", "0")


def test_the_states_of_a_loop(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node()
    assert node.loop.link.state is State.NEW
    node.start()
    node.settle()
    assert node.loop.link.state is State.DISCONNECTED
    node.transport.deliver(LinkUp(1))
    node.settle()
    assert node.loop.link.state is State.CONNECTED
    node.loop.close()
    assert node.loop.link.state is State.STOPPED
    with pytest.raises(LinkError, match="stopped"):
        node.loop.publish(Publish(Topic("home", Kind.ANSWER, "edge"), ANSWER))


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_forbidden_transitions_raise(
    make_node: Callable[..., DrivenNode], before: State, after: State
) -> None:
    loop = make_node().loop
    loop.link = LoopState(before, 0.0)
    if after in TRANSITIONS[before]:
        loop._enter(after)
        assert loop.link.state is after
    else:
        with pytest.raises(LocalProtocolError, match=f"{before.value} cannot be {after.value}"):
            loop._enter(after)


# ---------------------------------------------------------------- what arrives


def test_messages_arrive_with_their_bytes_on_the_wire(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node().start()
    topic = Topic("home", Kind.SCORES, "cam2")
    payload = encode(SCORES)
    node.transport.deliver(Arrived(str(topic), payload))
    node.settle()
    weight = 2 + 2 + len(str(topic)) + len(payload)  # MQTT 3.1.1: header, length, topic, payload
    assert node.machine.list_events(Received) == [Received(topic, SCORES, weight)]
    assert node.loop.counts == {}


def test_malformed_messages_are_counted_and_dropped(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node().start()
    topic = str(Topic("home", Kind.SCORES, "cam2"))
    good = encode(SCORES)
    bad = [
        *(Arrived(topic, good[:end]) for end in range(len(good))),
        Arrived(topic, good + b"\0"),
        Arrived(topic, encode(Escalate(1, 7, "ab12cd34", "local"))),
        Arrived(topic, b"\x92\x02" + good[2:]),
        Arrived(topic, b"\xdd\xff\xff\xff\xff" * 1000),
        Arrived(topic, bytes((16 << 20) + 1)),
        *(
            Arrived(text, good)
            for text in (
                "",
                "x",
                topic + "/x",
                topic.upper(),
                "ddnn/v2/home",
                "ddnn/v1/home/scores/CAM",
                "/" * 300,
                "\0",
            )
        ),
    ]
    node.transport.deliver(*bad)
    node.settle()
    assert node.loop.counts == {"malformed": len(bad)}
    assert node.machine.list_events(Received) == []
    assert node.loop.failed is None


def test_the_queue_is_bounded_and_drops_are_counted(
    make_node: Callable[..., DrivenNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_LIMIT", 10)
    node = make_node().start()
    arrived = Arrived(str(Topic("home", Kind.SCORES, "cam2")), encode(SCORES))
    node.transport.deliver(*[arrived] * 500)
    node.settle()
    seen = len(node.machine.list_events(Received))
    assert seen + node.loop.counts["queue_full"] == 500
    assert 10 <= seen <= 11
    node.transport.deliver(LinkUp(1))  # what is no message is never refused
    node.settle()
    assert node.machine.list_events(Connected)


def test_a_retained_message_that_was_removed_is_no_malformed_one(
    make_node: Callable[..., DrivenNode],
) -> None:
    node = make_node().start()
    node.transport.deliver(LinkUp(1))
    other = Topic("home", Kind.STATUS, "cam6")
    node.transport.deliver(Arrived(str(other), b""))
    node.settle()
    assert node.machine.list_events(Forgotten) == [Forgotten(other)]
    assert node.loop.counts == {}
    before = len(node.transport.list_statuses())
    node.transport.deliver(Arrived(STATUS, b""))  # somebody forgot this node, which is online
    node.settle()
    assert len(node.transport.list_statuses()) == before + 1
    assert node.transport.list_statuses()[-1].state == "online"


# ------------------------------------------------------------ messages of other threads


def test_other_threads_publish_through_the_loop_while_connected(
    make_node: Callable[..., DrivenNode],
) -> None:
    node = make_node().start()
    command = Publish(Topic("home", Kind.THRESHOLDS, "edge"), Thresholds("b1", {"local": 0.5}, 1))
    with pytest.raises(LinkError, match="not connected yet"):
        node.loop.publish(command)
    node.transport.deliver(LinkUp(1))
    node.settle()
    assert node.loop.link.connected
    node.loop.publish(command)
    node.settle()
    assert node.transport.published[-1] == (str(command.topic), encode(command.message), 1, True)
    node.transport.deliver(LinkDown("pulled"))
    node.settle()
    with pytest.raises(LinkError, match="pulled"):
        node.loop.publish(command)
    since_s = node.loop.link.since_s
    node.transport.deliver(LinkDown("still pulled"))  # an attempt that failed: it is no new outage
    node.settle()
    assert (node.loop.link.since_s, node.loop.link.reason) == (since_s, "still pulled")


def test_announcements_are_retained_and_published_at_every_connect(
    make_node: Callable[..., DrivenNode],
) -> None:
    node = make_node(announcements=[("homeassistant/x/config", b"{}")]).start()
    for session in (1, 2):
        node.transport.deliver(LinkUp(session))
        node.settle()
        assert node.transport.published[-1] == ("homeassistant/x/config", b"{}", 1, True)
    assert len([t for t, *_ in node.transport.published if t == "homeassistant/x/config"]) == 2


# ----------------------------------------------------------- two processes of one name

CLAIM = str(Topic("home", Kind.CLAIM, "cam1"))


def claim(node: DrivenNode, instance: int, age_s: float) -> None:
    node.transport.deliver(Arrived(CLAIM, encode(NameClaim(instance, age_s))))
    node.settle()


def test_a_node_announces_itself_once_its_claim_is_back(
    make_node: Callable[..., DrivenNode],
) -> None:
    node = make_node(identity=replace(ME, instance=7)).start()
    node.transport.deliver(LinkUp(1))
    node.settle()
    assert not node.loop.link.connected
    assert node.machine.list_events(Connected) == []
    assert [topic for topic, *_ in node.transport.published] == [CLAIM]
    claim(node, 7, 0.0)
    assert node.loop.link.connected
    assert len(node.machine.list_events(Connected)) == 1
    assert node.transport.filters == [[STATUS, CLAIM], ["a/#", "b/#"]]
    assert node.transport.list_statuses()[-1].instance == 7


def test_a_newer_process_is_answered_and_an_older_one_ends_this_one(
    make_node: Callable[..., DrivenNode],
) -> None:
    node = make_node(identity=replace(ME, instance=7)).start()
    node.transport.deliver(LinkUp(1))
    claim(node, 7, 0.0)
    node.transport.published.clear()
    claim(node, 3, -1e6)
    assert [topic for topic, *_ in node.transport.published] == [CLAIM]
    assert node.loop.counts["name_conflicts"] == 1
    node.transport.deliver(Arrived(CLAIM, encode(NameClaim(3, 1e6))))
    assert node.loop.join(IN_TIME_S)
    assert isinstance(node.loop.failed, ConfigError)
    node.loop.close()
    assert node.transport.last_words is None  # the other one is still online
