"""Pictures of several cameras reach a collector, whatever the network, devices and disk do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from ddnn.core.site_time import make_sample_id
from ddnn.machines.picture_collector import Format, Picture, PictureCollector, State
from ddnn.machines.recorder import Permission, Recorder
from ddnn.machines.recording_notice import RecordingNotice
from ddnn.protocol.machine import Captured, Now
from ddnn.protocol.record_messages import CHUNK_BYTES, RecordChunk
from ddnn.protocol.topics import Kind, Topic, parse
from ddnn.runtime.identity import Identity
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from tests.simulation.access_lists import AccessLists

PERIOD_S, EVERY_S = 0.25, 0.5
CAMERAS = ("cam1", "cam2", "cam3")
SESSION = "20260102-030405-ab"


def make_picture(node: str, sample: int) -> bytes:
    """Bytes that only this picture has, of several chunks."""
    size = 2 * CHUNK_BYTES + 1000 + sample % 7
    seed = [CAMERAS.index(node), sample % 2**32]
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


@dataclass
class Disk:
    """What the collector keeps; `full` as long as nothing can be written."""

    pictures: dict[tuple[str, int], Picture] = field(default_factory=dict)
    full: bool = False

    def keep(self, picture: Picture) -> int:
        if self.full:
            raise OSError("No space left on device")
        key = picture.device, picture.sample
        assert key not in self.pictures, "kept twice"
        self.pictures[key] = picture
        return len(picture.jpeg)


class Recording:
    """Three cameras with a tick every PERIOD_S, and a collector, in virtual time."""

    def __init__(
        self, network: Network | None = None, *, drain_s: float = 20.0, **permission: int
    ) -> None:
        self.drain_s = drain_s
        self.simulation = Simulation(np.random.default_rng(3), network or Network())
        self.disk = Disk()
        self.taken: dict[str, set[int]] = {node: set() for node in CAMERAS}
        self.permissions = dict.fromkeys(CAMERAS, Permission(True, **permission))
        for node in CAMERAS:
            self.simulation.add(
                Identity("home", node, "device", "b1", ""), lambda _, node=node: self._record(node)
            )
        self.simulation.add(
            Identity("home", "collector", "worker", "", ""), lambda _: self._collect()
        )
        self.simulation.add(
            Identity("home", "edge", "edge", "", ""), lambda _: RecordingNotice("home")
        )
        for number in range(400):
            for node in CAMERAS:
                self.simulation.at(number * PERIOD_S + 0.01, lambda n=node: self._capture(n))

    def _record(self, node: str) -> Recorder:
        return Recorder("home", node, PERIOD_S, self.permissions[node], bundle="b1")

    def _collect(self) -> PictureCollector:
        self.collector = PictureCollector(
            "home", SESSION, self.disk.keep, Format(EVERY_S), drain_s=self.drain_s
        )
        return self.collector

    @property
    def wall_s(self) -> float:
        return Simulation.WALL_S + self.simulation.now_s

    def _capture(self, node: str) -> None:
        machine = self.simulation.machine(f"home/{node}")
        if machine is None:
            return
        tick = round(self.wall_s // PERIOD_S)
        sample = make_sample_id(0, tick)
        picture = make_picture(node, sample) if machine.wants(sample) else None  # type: ignore[attr-defined]
        if picture:
            self.taken[node].add(sample)
        frame = Captured(sample, tick * PERIOD_S, {}, picture=picture)
        self.simulation.capture(f"home/{node}", frame)

    def ask(self, at_s: float, act: Callable[[Now], list]) -> None:
        """Let the user of the collector do something at a virtual time."""

        def do() -> None:
            for effect in act(Now(self.simulation.now_s, self.wall_s)):
                self.simulation.node("home/collector").publish(effect)
            self.simulation.node("home/collector")._schedule_tick(self.collector)

        self.simulation.at(at_s, do)

    def run(self, *, for_s: float = 6.0, finish_s: float = 9.0, until_s: float = 60.0) -> None:
        self.ask(2.0, lambda now: self.collector.begin(for_s, now))
        self.ask(finish_s, lambda now: self.collector.finish(now))
        self.simulation.run(until_s)
        assert self.simulation.failures == []

    def check_kept(self) -> None:
        """Every kept picture is what its camera took, and lies in the window of its burst."""
        from_s, until_s = self.collector.bounds_s
        for (node, sample), picture in self.disk.pictures.items():
            assert picture.jpeg == make_picture(node, sample)
            assert from_s <= sample * PERIOD_S < until_s
            assert sample % round(EVERY_S / PERIOD_S) == 0

    def kept_of(self, node: str) -> set[int]:
        return {sample for device, sample in self.disk.pictures if device == node}


@pytest.mark.parametrize(
    "network",
    [
        Network(),
        Network(loss=0.1),
        Network(reordering=0.3, reorder_s=0.4),
        Network(duplication=0.4, reorder_s=0.4),
        Network(loss=0.05, reordering=0.2, duplication=0.2, latency_s=0.02),
    ],
    ids=["calm", "loss", "reordering", "duplicates", "all"],
)
def test_all_cameras_keep_the_same_ticks_and_the_collector_has_every_picture(
    network: Network,
) -> None:
    site = Recording(network, drain_s=45.0)
    site.run(finish_s=10.0)
    expected = site.taken["cam1"]
    assert len(expected) == 12  # 6 s, every 0.5 s
    for node in CAMERAS:
        assert site.kept_of(node) == site.taken[node] == expected
    site.check_kept()
    assert site.collector.state is State.DONE
    assert site.simulation.now_s == 60.0
    assert all(not m.gauges["pictures_waiting"] for m in recorders(site))


def recorders(site: Recording) -> list[Recorder]:
    machines = [site.simulation.machine(f"home/{node}") for node in CAMERAS]
    return [machine for machine in machines if isinstance(machine, Recorder)]


def test_a_camera_without_a_broker_sends_later_what_it_kept() -> None:
    site = Recording()
    site.simulation.at(4.0, lambda: site.simulation.disconnect("home/cam2"))
    site.simulation.at(15.0, lambda: site.simulation.connect("home/cam2"))
    site.run()
    assert site.kept_of("cam2") == site.taken["cam2"] == site.taken["cam1"]
    assert site.collector.state is State.DONE


def test_a_killed_camera_loses_what_was_not_acknowledged_and_records_again() -> None:
    site = Recording()
    site.simulation.at(4.5, lambda: site.simulation.crash("home/cam2"))
    site.simulation.at(6.0, lambda: site.simulation.start("home/cam2"))
    site.run()
    kept = site.kept_of("cam2")
    assert kept <= site.kept_of("cam1")
    assert 3 < len(kept) < 12
    assert max(kept) == max(site.kept_of("cam1"))  # it takes part again
    site.check_kept()
    assert site.collector.state is State.DONE


def test_a_camera_that_stays_away_is_waited_for_and_then_left_out() -> None:
    site = Recording()
    site.simulation.at(4.5, lambda: site.simulation.crash("home/cam2"))
    site.run(until_s=25.0)
    assert site.collector.state is State.DRAINING
    site.simulation.run(31.0)
    assert site.collector.state is State.DONE
    assert site.kept_of("cam1") == site.kept_of("cam3") == site.taken["cam1"]


def test_nothing_is_lost_while_the_broker_is_gone() -> None:
    site = Recording()
    site.simulation.at(4.0, lambda: site.simulation.set_broker(up=False))
    site.simulation.at(11.0, lambda: site.simulation.set_broker(up=True))
    site.run()
    for node in CAMERAS:
        assert site.kept_of(node) == site.taken[node]
        assert len(site.taken[node]) == 12
    assert site.collector.state is State.DONE


def test_a_full_disk_ends_the_burst_and_what_waits_is_kept_once_there_is_room() -> None:
    site = Recording()

    def fill(full: bool) -> None:
        site.disk.full = full

    site.simulation.at(5.0, lambda: fill(True))
    site.simulation.at(12.0, lambda: fill(False))
    site.run()
    assert "No space left" in site.collector.failure
    assert len(site.taken["cam1"]) < 12  # the burst was ended
    for node in CAMERAS:
        assert site.kept_of(node) == site.taken[node]
    site.check_kept()


def test_a_device_that_does_not_allow_it_sends_nothing_and_says_why() -> None:
    site = Recording()
    site.permissions["cam3"] = Permission(False)
    site.simulation.crash("home/cam3")
    site.simulation.start("home/cam3")
    site.run()
    assert site.kept_of("cam3") == set()
    state = site.collector.devices["cam3"].state
    assert state.state == "refused"
    assert "--allow-recording on" in state.reason
    assert site.kept_of("cam1") == site.taken["cam1"]
    assert site.collector.state is State.DONE


def test_a_device_keeps_no_more_than_its_memory_holds() -> None:
    site = Recording(memory_bytes=5 * 3 * CHUNK_BYTES)
    site.simulation.at(3.0, lambda: site.simulation.disconnect("home/cam2"))
    site.simulation.at(12.0, lambda: site.simulation.connect("home/cam2"))
    site.run()
    machine = site.simulation.machine("home/cam2")
    assert machine.counts["pictures_dropped"] == 12 - len(site.kept_of("cam2"))
    assert 5 <= len(site.kept_of("cam2")) < 12
    assert site.collector.devices["cam2"].state.dropped == machine.counts["pictures_dropped"]


def test_a_device_stops_when_its_collector_is_killed() -> None:
    site = Recording()
    site.simulation.at(4.0, lambda: site.simulation.crash("home/collector"))
    site.ask(2.0, lambda now: site.collector.begin(60.0, now))
    site.simulation.run(40.0)
    assert site.simulation.failures == []
    assert all(machine.gauges["recording"] == 0 for machine in recorders(site))
    assert all(machine.gauges["pictures_waiting"] == 0 for machine in recorders(site))
    assert max(site.taken["cam1"]) * PERIOD_S - Simulation.WALL_S < 25
    warnings = [log.message for _, node, log in site.simulation.journal.logs if node == "home/cam1"]
    assert any(message.startswith("RECORDING") for message in warnings)
    assert any("has ended" in message for message in warnings)


def test_the_edge_announces_it_in_its_log_while_it_goes_on() -> None:
    site = Recording()
    site.run(for_s=40.0, finish_s=45.0)
    said = [
        (round(at_s), log.message.split()[0])
        for at_s, node, log in site.simulation.journal.logs
        if node == "home/edge"
    ]
    assert said == [(2, "RECORDING:"), (32, "RECORDING:"), (43, "the")]


def test_the_limit_of_bytes_ends_the_session() -> None:
    site = Recording()
    site.collector._max_bytes = 10 * 3 * CHUNK_BYTES
    site.run(until_s=12.0)
    assert site.collector.kept_bytes <= 10 * 3 * CHUNK_BYTES
    assert "limit" in site.collector.ended_because
    assert site.collector.state is State.DONE


def test_a_broken_picture_is_counted_and_the_next_ones_come() -> None:
    site = Recording()
    keep = site.disk.keep

    def keep_most(picture: Picture) -> int | None:
        is_broken = picture.device == "cam2" and len(site.kept_of("cam2")) == 3
        if is_broken and not site.collector.counts["pictures_broken"]:
            return None
        return keep(picture)

    site.collector._keep = keep_most
    site.run()
    assert len(site.kept_of("cam2")) == len(site.taken["cam2"]) - 1
    assert site.collector.counts["pictures_broken"] == 1
    assert site.collector.failure == ""


def test_chunks_that_nobody_asked_for_are_refused() -> None:
    site = Recording()
    topic = Topic("home", Kind.RECORD_CHUNK, "cam1")
    for chunk in (
        RecordChunk(1, SESSION, 7, 5, 0, 3, b"abc"),  # of no burst
        RecordChunk(1, SESSION, 1, 5, 1, 3, b"bc"),  # between two places
        RecordChunk(1, SESSION, 1, 5, 0, 3, b"ab"),  # too short
        RecordChunk(1, "other", 1, 5, 0, 3, b"abc"),
    ):
        site.simulation.at(5.0, lambda chunk=chunk: site.simulation.publish(topic, chunk))
    site.run()
    assert site.collector.counts["chunks_refused"] == 3
    assert site.kept_of("cam1") == site.taken["cam1"]


def test_a_recording_passes_the_access_lists_and_nobody_else_orders_one() -> None:
    site = Recording()
    roles = {f"home/{node}": ("device",) for node in CAMERAS}
    roles |= {"home/collector": ("collector",), "home/edge": ("edge",)}
    lists = AccessLists(site.simulation, roles)
    site.run()
    # The collector of the simulation announces its presence, a real one does not.
    assert {parse(topic).kind for _, topic in lists.refused} <= {Kind.STATUS}
    for node in CAMERAS:
        assert site.kept_of(node) == site.taken[node]
    order = str(Topic("home", Kind.RECORD_ORDER))
    assert lists.find_writers(order) == {"home/collector"}
    assert lists.find_writers(str(Topic("home", Kind.RECORD_CHUNK, "cam1"))) == {"home/cam1"}
