"""The proxy of the benchmarks loses, repeats and delays messages on their way to a real broker."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.harness.message_proxy import MessageProxy
from benchmarks.pipeline.faults import FAULTS, MOMENTS, WHOM, Injector, list_cases

IN_TIME_S = 20.0
DELAYS_S = {b"kept": [0.0], b"lost": [], b"repeated": [0.0, 0.0], b"late": [0.3], b"last": [0.0]}


@pytest.fixture
def proxy(port: int) -> Iterator[MessageProxy]:
    def forward(topic: str, payload: bytes) -> Sequence[float]:
        assert topic == "a/b"
        return DELAYS_S[payload]

    proxy = MessageProxy(port, forward)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
def test_messages_are_lost_repeated_and_overtaken(
    proxy: MessageProxy, protocol: MQTTProtocolVersion, qos: int
) -> None:
    received: queue.Queue[bytes] = queue.Queue()
    subscribed: queue.Queue[bool] = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
    client.on_connect = lambda client, *_: client.subscribe("a/b", 1)
    client.on_subscribe = lambda *_: subscribed.put(True)
    client.on_message = lambda client, _, message: received.put(message.payload)
    client.connect("127.0.0.1", proxy.port)
    client.loop_start()
    try:
        assert subscribed.get(timeout=IN_TIME_S)
        sent = [client.publish("a/b", payload, qos) for payload in DELAYS_S]
        for info in sent:  # those that are lost are confirmed, too
            info.wait_for_publish(IN_TIME_S)
            assert info.is_published()
        found = [received.get(timeout=IN_TIME_S) for _ in range(5)]
        assert found == [b"kept", b"repeated", b"repeated", b"last", b"late"]
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_third_of_the_fault_matrix_has_every_fault_at_every_moment() -> None:
    cases = list_cases()
    assert len(cases) == len(FAULTS) * len(MOMENTS)
    pairs = {(case.fault, case.moment) for case in cases}
    assert pairs == {(fault, moment) for fault in FAULTS for moment in MOMENTS}
    assert {(case.fault, case.whom) for case in cases} == {(f, w) for f in FAULTS for w in WHOM}
    assert {(case.moment, case.whom) for case in cases} == {(m, w) for m in MOMENTS for w in WHOM}


def test_foreign_messages_pass_an_injector() -> None:
    injector = Injector()
    injector.arm(list_cases()[0], lambda node: None, lambda: None)
    assert injector.decide("ddnn/v1/site/train/worker1/flow", b"no message") == [0.0]
    assert injector.decide("foreign/topic", b"") == [0.0]
    assert not injector.has_come
