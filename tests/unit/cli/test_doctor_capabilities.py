"""`ddnn doctor` on brokers that grant what they do not serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ddnn.cli.doctor.capabilities import check_capabilities
from ddnn.protocol.access import matches
from ddnn.runtime.transport import Arrived

SHARED = "$share/"


class Broker:
    """A broker, its transport and the connection to it; each message arrives at once or never."""

    max_packet_bytes = 65_536

    def __init__(self, *, finds_retained: bool, serves_share: bool) -> None:
        self._finds_retained, self._serves_share = finds_retained, serves_share
        self._retained: dict[str, bytes] = {}
        self._filters: list[str] = []
        self._arrived: list[Arrived] = []
        self.transport = self

    def subscribe(self, filters: Sequence[str]) -> None:
        self._filters += filters
        for filter_ in filters if self._finds_retained else ():
            found = [topic for topic in self._retained if matches(filter_, topic)]
            self._arrived += [Arrived(topic, self._retained[topic]) for topic in found]

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if retain and payload:
            self._retained[topic] = payload
        elif retain:
            self._retained.pop(topic, None)
        plain = [text for text in self._filters if not text.startswith(SHARED)]
        shares = [text for text in self._filters if text.startswith(SHARED)]
        own = [text.split("/", 2)[2] for text in shares if self._serves_share]
        if any(matches(text, topic) for text in plain + own):
            self._arrived.append(Arrived(topic, payload))

    def wait_for(self, is_wanted: Callable[[Any], bool], within_s: float) -> Arrived | None:
        arrived, self._arrived = self._arrived, []
        return next((event for event in arrived if is_wanted(event)), None)

    @property
    def retained(self) -> list[str]:
        return list(self._retained)


@pytest.mark.parametrize(
    ("finds_retained", "serves_share", "share", "outcome", "words"),
    [
        (True, True, "clouds", "ok", "at most 65536 bytes; shared subscriptions"),
        (True, True, "", "ok", "retained messages through wildcards"),
        (True, False, "", "ok", "retained messages through wildcards"),
        (True, False, "clouds", "warning", "--share clouds, and delivers nothing"),
        (False, True, "clouds", "warning", "does not deliver retained messages"),
    ],
)
def test_what_a_broker_does_not_serve_is_a_warning(
    finds_retained: bool, serves_share: bool, share: str, outcome: str, words: str
) -> None:
    broker: Any = Broker(finds_retained=finds_retained, serves_share=serves_share)
    node: Any = SimpleNamespace(settings=SimpleNamespace(site="home", node="cloud"), share=share)
    finding = check_capabilities(node, broker)
    assert finding.outcome == outcome
    assert words in finding.message
    assert bool(finding.remedy) == (outcome == "warning")
    assert broker.retained == []  # nothing of it stays at the broker
