"""Messages over the broker's limit are divided where that is possible, and counted where not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from ddnn.protocol.codec import decode, publish_bytes
from ddnn.protocol.machine import Publish
from ddnn.protocol.messages import AnswerAck, Backlog
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.transport import LinkUp, Refused
from tests.unit.runtime.driven_node import ANSWER, DrivenNode


def publish(node: DrivenNode, limit: int | None, effect: Publish) -> list[tuple[str, bytes]]:
    node.transport.max_packet_bytes = limit
    node.transport.published.clear()
    node.loop.publish(effect)
    node.settle()
    return [(topic, payload) for topic, payload, *_ in node.transport.published]


@pytest.mark.parametrize("limit", [None, 100_000, 4096, 700])
def test_a_backlog_is_divided_into_packets_that_the_broker_takes(
    make_node: Callable[..., DrivenNode], limit: int | None
) -> None:
    node = make_node().start()
    node.transport.deliver(LinkUp(1))
    node.settle()
    answers = [msgspec.structs.replace(ANSWER, sample=number) for number in range(100)]
    effect = Publish(Topic("home", Kind.BACKLOG, "cam1"), Backlog(answers))
    packets = publish(node, limit, effect)
    parts = [decode(Kind.BACKLOG, payload) for _, payload in packets]
    assert [a for part in parts if isinstance(part, Backlog) for a in part.answers] == answers
    assert (len(packets) == 1) == (limit in (None, 100_000))
    for topic, payload in packets:
        assert limit is None or publish_bytes(topic, len(payload), 1) < limit


def test_a_confirmation_is_divided_and_a_single_answer_is_not(
    make_node: Callable[..., DrivenNode],
) -> None:
    node = make_node().start()
    node.transport.deliver(LinkUp(1))
    node.settle()
    ack = Publish(Topic("home", Kind.ACK, "cam1"), AnswerAck(list(range(1000))))
    parts = [decode(Kind.ACK, payload) for _, payload in publish(node, 500, ack)]
    samples = [s for part in parts if isinstance(part, AnswerAck) for s in part.samples]
    assert samples == list(range(1000))
    alone = Publish(Topic("home", Kind.BACKLOG, "cam1"), Backlog([ANSWER]))
    assert len(publish(node, 50, alone)) == 1  # the transport refuses and reports it


def test_what_the_broker_refuses_is_counted_and_logged_once_a_topic(
    make_node: Callable[..., DrivenNode], caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node().start()
    for _ in range(3):
        node.transport.deliver(
            Refused("publish", "ddnn/v1/home/answer", "Not authorized"),
            Refused("subscribe", "ddnn/v1/home/escalate", "Not authorized"),
            Refused("publish", "ddnn/v1/home/task/edge", "9000 bytes", too_large=True),
        )
    node.settle()
    assert node.loop.counts == {"publish_refused": 3, "subscribe_refused": 3, "too_large": 3}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert "publish ddnn/v1/home/answer: Not authorized" in lines[0]
    assert "access list" in lines[0]
    assert "max_packet_size" in lines[2]
