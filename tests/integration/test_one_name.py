"""Two processes of one node's name at a real broker, in both versions of MQTT."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ddnn.adapters.mqtt import MqttTransport
from ddnn.errors import ConfigError
from ddnn.protocol.machine import Connected, Disconnected
from ddnn.runtime import name
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import Loop
from ddnn.runtime.site_identity import Broker
from tests.integration.site import IN_TIME_S, Voice, mosquitto
from tests.unit.runtime.driven_node import DrivenMachine


@pytest.fixture(scope="module")
def own_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mosquitto(tmp_path_factory.mktemp("broker"), "allow_anonymous true") as port:
        yield port


@pytest.fixture(params=["5", "3.1.1"])
def start(request: pytest.FixtureRequest, own_port: int) -> Iterator[Callable[[int], Any]]:
    """start(instance) starts a process's loop as node cam1."""
    loops: list[Loop] = []

    def make(instance: int) -> Loop:
        transport = MqttTransport(
            f"home-cam1-{instance}", [Broker("127.0.0.1", own_port)], request.param
        )
        identity = Identity("home", "cam1", "device", "b1", "0", instance)
        loops.append(Loop(identity, DrivenMachine(), transport, stats_every_s=1000.0))
        loops[-1].start()
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


def wait_until(true: Callable[[], Any]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.01)


def test_the_newer_one_withdraws_and_the_older_one_is_left_in_peace(
    start: Callable[[int], Any],
) -> None:
    first = start(9)  # where a message takes longer than the ages differ, the greater one stays
    wait_until(lambda: first.link.connected)
    for instance in (2, 3):
        newer = start(instance)
        wait_until(lambda newer=newer: newer.failed is not None)
        assert isinstance(newer.failed, ConfigError)
        assert "another process is node cam1" in str(newer.failed)
        assert newer.machine.events == []  # it has disturbed nobody
        newer.close()
    assert first.link.connected
    assert first.counts["name_conflicts"] >= 2  # a claim may be repeated
    kinds = [type(event) for event, _ in first.machine.events]
    assert kinds.count(Connected) == 1
    assert Disconnected not in kinds


def test_a_node_that_is_started_again_is_not_refused(
    start: Callable[[int], Any], own_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name, "ANSWER_S", 0.3)
    voice = Voice(own_port)  # the status of its former process, which lost its power
    voice.announce("cam1", "device", instance=9)
    voice.close()
    again = start(2)
    wait_until(lambda: again.link.connected)
    assert again.failed is None
