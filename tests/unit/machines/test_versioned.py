"""What a bundle's machine learns that is added later, and which sections are freed."""

from __future__ import annotations

from ddnn.core.section import BundleKey
from ddnn.machines.versioned import Version, VersionedMachine
from ddnn.protocol.machine import Connected, Effect, Event, Now, Received, Unload
from ddnn.protocol.messages import Thresholds
from ddnn.protocol.topics import Kind, Topic

NOW = Now(10.0, 1e9)


class Listener:
    """A machine that keeps the events that it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.counts: dict[str, int] = {}
        self.gauges: dict[str, float] = {}

    def subscriptions(self) -> list[str]:
        return []

    def deadline_s(self) -> None:
        return None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        self.events.append(event)
        return []


def make_version(bundle: str) -> Version[Listener]:
    return Version(bundle, Listener(), ["cam1"])


def command(bundle: str, local: float) -> Received:
    topic = Topic("home", Kind.THRESHOLDS, "edge")
    return Received(topic, Thresholds(bundle, {"local": local}, 3))


def test_a_bundle_that_is_used_again_gets_the_thresholds_that_were_commanded_for_it() -> None:
    node = VersionedMachine(make_version("a"), hold_s=1.0)
    newest, other = command("a", 0.2), command("b", 0.7)
    for event in (Connected(), command("a", 0.1), newest, other):
        node.handle(event, NOW)
    for bundle, since, known in (("b", 10, other), ("a", 20, newest)):
        version = make_version(bundle)
        node.add(version, NOW)
        node.switch(bundle, since)
        assert version.machine.events == [Connected(), known]


def test_a_section_that_was_just_loaded_is_not_freed() -> None:
    """Without samples the bundles before are not freed until one of them comes again."""
    node = VersionedMachine(make_version("a"), hold_s=1.0)
    effects = []
    for since, bundle in enumerate("bab"):
        effects = node.add(make_version(bundle), NOW)
        node.switch(bundle, since)
    assert Unload(BundleKey("b", "cam1")) not in effects
    assert node.current == "b"
