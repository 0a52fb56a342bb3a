"""The states of nodes in the registry, and the events that it reports."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloud_app.registry import (
    ANNOUNCED_WITHIN_S,
    EVENT_PERIOD_S,
    MAX_NODES,
    MAX_STRANGERS,
    NEW_PER_MINUTE,
)
from ddnn.protocol.commands import REFUSALS
from ddnn.protocol.machine import Connected, Forgotten
from ddnn.protocol.messages import Stats, Status
from ddnn.protocol.topics import Kind, Topic
from tests.unit.apps.registry_world import ANSWER, World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_node_joins_dies_and_returns(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive_status("cam1", "online")
    world.receive_status("cam1", "lost")
    world.receive_status("cam1", "online", 2)
    world.receive_status("cam1", "lost", 1)  # the Will of the first connection, late
    world.receive_status("cam1", "stopped", 2)
    assert world.events == [("cam1", what) for what in ("joined", "died", "joined", "stopped")]
    assert len(set(world.keys)) == 4  # each has the same key for every writer
    assert world.list_states() == {"cam1": "stopped"}


def test_a_node_that_changes_its_bundle_is_reported(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive("cam1", Status("device", 1, "online", "b2", "0.1"))
    assert world.events[1:] == [("cam1", "uses bundle b2 in the place of b1")]
    assert [view.bundle for view in world.registry.list_nodes()] == ["b2"]
    world.receive("cam1", Status("device", 1, "online", "b2", "0.1"))
    world.receive_status("stranger", "online")
    before = len(world.events)
    world.receive("stranger", Status("device", 1, "online", "b3", "0.1"))
    assert len(world.events) == before


def test_statistics_belong_to_a_session_and_have_an_age(world: World) -> None:
    world.receive_stats("cam9")  # an unknown node
    world.receive_status("cam1", "online")
    world.receive_stats("cam1", answers=3)
    world.now_s += 4
    (view,) = world.registry.list_nodes()
    assert (view.last_seen_age_s, view.counts, view.uptime_s) == (4.0, {"answers": 3}, 5.0)
    assert (view.version, view.bundle, view.gauges) == ("0.1", "b1", {"queue": 1.0})
    world.receive_status("cam1", "online")  # the same session, repeated
    assert world.registry.list_nodes()[0].counts == {"answers": 3}
    world.receive_status("cam1", "online", 2)
    assert world.registry.list_nodes()[0].counts == {}


def test_drops_are_reported_once_and_old_drops_are_not(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive_stats("cam1", malformed=5, messages_sent=100)
    assert world.events[1:] == []
    world.receive_stats("cam1", malformed=5, messages_sent=200)
    assert world.events[1:] == []
    world.receive_stats("cam1", malformed=7, queue_full=1, messages_sent=300)
    assert world.events[1:] == [("cam1", "dropped at least 2 malformed, 1 queue_full")]


def test_a_device_that_answers_alone_is_reported(world: World) -> None:
    world.receive("cam1", ANSWER, Kind.ANSWER)
    assert world.events == [("cam1", "fell back: it answers alone, from its own exit")]
    assert world.registry.inferred_s == world.now_s
    key = world.keys[0]
    world.now_s += 1
    world.receive("cam1", ANSWER, Kind.ANSWER)
    assert world.keys[1] == key  # the same minute: the store keeps one
    world.now_s += 60
    world.receive("cam1", ANSWER, Kind.ANSWER)
    assert world.keys[2] != key
    world.receive("cam1", msgspec.structs.replace(ANSWER, exit="local"), Kind.ANSWER)
    world.receive("cam1", msgspec.structs.replace(ANSWER, late=True), Kind.ANSWER)
    assert len(world.keys) == 3


def test_a_node_that_does_not_announce_itself_after_a_reconnect_is_lost(
    world: World,
) -> None:
    for node in ("cam1", "cam2"):
        world.receive_status(node, "online")
    world.now_s += 20
    world.registry.observe(Connected())
    world.now_s += 1
    world.receive_status("cam1", "online")
    assert world.list_states() == {
        "cam1": "online",
        "cam2": "online",
    }  # its announcement may be late
    world.now_s += ANNOUNCED_WITHIN_S
    assert world.list_states() == {"cam1": "online", "cam2": "lost"}
    world.receive_status("cam2", "online")
    assert world.list_states() == {"cam1": "online", "cam2": "online"}


def test_a_silent_node_is_lost_even_without_a_will(world: World) -> None:
    """As after a failed bridge between brokers, where the far broker still holds every birth."""
    for node in ("cam1", "cam2"):
        world.receive_status(node, "online")
        world.receive_stats(node, uptime_s=5.0)
    for i in range(4):
        world.now_s += 20
        world.receive_stats("cam1", uptime_s=10.0 + 5 * i)
    assert world.list_states() == {"cam1": "online", "cam2": "lost"}


def test_a_node_with_rare_statistics_is_not_lost_early(world: World) -> None:
    world.receive_status("cam1", "online")
    for i in range(3):
        world.now_s += 60
        world.receive_stats("cam1", uptime_s=60.0 * (i + 1))
    world.now_s += 100
    assert world.list_states() == {"cam1": "online"}
    world.now_s += 200
    assert world.list_states() == {"cam1": "lost"}


def test_statistics_that_were_lost_do_not_make_a_node_rare(world: World) -> None:
    """After an hour without a link the node publishes as often as before."""
    world.receive_status("cam1", "online")
    for uptime_s in (5.0, 10.0, 3610.0, 3615.0):
        world.receive_stats("cam1", uptime_s=uptime_s)
    world.now_s += 60
    assert world.list_states() == {"cam1": "lost"}


def test_a_camera_that_goes_and_comes_back_is_reported(world: World) -> None:
    world.receive_status("cam1", "online")
    for uptime_s, up in enumerate((1.0, 1.0, 0.0, 0.0, 1.0)):
        stats = Stats("device", uptime_s, 0, {}, {"camera_up": up})
        world.receive("cam1", stats, Kind.STATS)
    words = [what for _, what in world.events[1:]]
    assert words == ["camera is away: it is opened again and again", "camera is back"]
    assert len(set(world.keys)) == 3


def test_a_site_that_thins_its_ticks_is_reported_once_a_minute(world: World) -> None:
    world.receive_status("edge", "online")
    for uptime_s, share in enumerate((1.0, 0.125, 0.25, 1.0)):
        stats = Stats("edge", uptime_s, 0, {"samples_shed": 70}, {"share_taken": share})
        world.receive("edge", stats, Kind.STATS)
    words = [what for _, what in world.events[1:]]
    assert words[0] == "too much to do: cameras take 12 % of the ticks, 70 were shed"
    assert len(set(world.keys[1:])) == 1


def test_a_step_of_a_nodes_clock_is_reported(world: World) -> None:
    world.receive_status("edge", "online")
    for uptime_s, steps in enumerate((0, 1, 1, 2)):
        world.receive_stats("edge", uptime_s, clock_set_back=steps, clock_set_ahead=0)
    assert [what for _, what in world.events[1:]] == 2 * ["its clock was set back"]


def test_the_time_of_the_newest_inference_also_comes_from_statistics(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive("cam1", Stats("device", 5.0, 0, {}, {"inference_age_s": 3.0}), Kind.STATS)
    assert world.registry.inferred_s == world.now_s - 3.0


def test_a_lost_cloud_is_listed_only_without_a_successor(world: World) -> None:
    def receive_cloud(node: str, state: Any) -> None:
        world.receive(node, Status("cloud", 1, state, "b1", "0.1"))

    receive_cloud("cloud-1", "online")
    receive_cloud("cloud-1", "lost")
    assert world.list_states() == {"cloud-1": "lost"}
    receive_cloud("cloud-2", "online")
    assert world.list_states() == {"cloud-2": "online"}
    world.receive_status("cam1", "lost")
    assert world.list_states() == {"cloud-2": "online", "cam1": "lost"}


def test_a_node_that_is_forgotten_is_not_listed_until_it_comes_again(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive_status("cam6", "lost")
    world.registry.observe(Forgotten(Topic("home", Kind.STATUS, "cam6")))
    world.registry.observe(Forgotten(Topic("home", Kind.STATUS, "cam7")))  # never seen
    world.registry.observe(Forgotten(Topic("home", Kind.OFFER, "cam1")))
    assert world.list_states() == {"cam1": "online"}
    assert [event for event in world.events if "forgotten" in event[1]] == [
        ("cam6", "was forgotten")
    ]
    world.receive_status("cam6", "online", 9)
    assert world.list_states()["cam6"] == "online"


def test_a_recording_is_an_event_when_it_begins_and_when_it_ends(world: World) -> None:
    world.receive_status("cam1", "online")
    for uptime_s, recording in ((5.0, 0.0), (10.0, 1.0), (15.0, 1.0), (20.0, 0.0)):
        gauges = {"recording": recording}
        world.receive("cam1", Stats("device", uptime_s, 1 << 20, {}, gauges), Kind.STATS)
    assert world.events[1:] == [
        ("cam1", "RECORDS: its pictures go to a collector"),
        ("cam1", "records no more"),
    ]


def test_refused_commands_are_events_each_once_a_minute(world: World) -> None:
    world.receive_status("edge", "online")
    for count in (1, 2):
        world.receive_stats("edge", commands_forged=count, commands_replayed=1, malformed=0)
    forged = ("edge", REFUSALS["commands_forged"])
    assert world.events[1:] == [forged, ("edge", REFUSALS["commands_replayed"]), forged]
    assert world.keys[1] == world.keys[3]  # the same minute: the store keeps one


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (12.4, "its certificate expires in 12 days: ddnn site add-node cam1 --renew"),
        (-1.0, "its certificate has expired: ddnn site add-node cam1 --renew"),
        (31.0, None),
        (float("nan"), None),
    ],
)
def test_a_certificate_that_expires_soon_is_an_event_each_day(
    world: World, days: float, text: str | None
) -> None:
    world.receive_status("cam1", "online")
    message = Stats("device", 5.0, 0, {}, {"certificate_days": days})
    expected = [("cam1", text)] if text else []
    for now_s, count in ((0, 1), (60, 1), (86_400, 2)):
        world.now_s = 1000.0 + now_s
        world.receive("cam1", message, Kind.STATS)
        assert world.events[1:] == expected * count
    assert len(set(world.keys)) == len(world.keys)


def test_made_up_ids_take_bounded_room_and_few_events(world: World) -> None:
    for n in range(12_000):
        world.receive_status(f"made-up-{n}", "online")
    assert len(world.list_states()) == MAX_STRANGERS
    assert f"made-up-{11_999}" in world.list_states()  # the newest
    assert len(set(zip(world.events, world.keys, strict=True))) == NEW_PER_MINUTE + 1
    assert "more than 60 unknown nodes" in world.events[-1][1]
    world.now_s += EVENT_PERIOD_S
    world.receive_status("made-up", "online")
    assert world.events[-1] == ("made-up", "joined")


def test_a_flood_of_ids_displaces_no_node_that_works(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive_status("worker1", "online")
    world.receive_stats("worker1")
    for n in range(5_000):
        world.receive_status(f"made-up-{n}", "online")
    world.receive_status("cam2", "online")
    assert {"cam1", "cam2", "worker1"} <= world.list_states().keys()
    assert world.events[-1] == ("cam2", "joined")


def test_nodes_are_bounded_even_if_all_report(world: World) -> None:
    for n in range(MAX_NODES + 100):
        world.receive_status(f"made-up-{n}", "online")
        world.receive_stats(f"made-up-{n}")
    world.receive_status("cam1", "online")
    states = world.list_states()
    assert len(states) == MAX_NODES
    assert "cam1" in states


def test_a_page_that_starts_again_repeats_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store keeps one of each key."""
    counts = {"clock_set_back": 1, "name_conflicts": 2, "commands_forged": 1}
    keys = []
    for now_s in (1000.0, 5000.0):
        world = World(monkeypatch)
        world.now_s = now_s
        world.receive_status("edge", "online")
        stats = Stats("edge", 30 * 86_400.0 + now_s, 0, counts, {})
        world.receive("edge", stats, Kind.STATS)
        keys.append(world.keys[1:])
    assert len(keys[0]) == 3
    assert keys[0] == keys[1]
