"""Frames become samples, in virtual time: the same instant on all cameras, no tick twice."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.core.pace import Pace, PaceHistory
from ddnn.core.site_time import SiteTime, find_epoch, find_tick
from device_app.capture import make_counts
from device_app.sources import Frame
from device_app.ticks import LATENCY_S, NearestFrames, StoredFrames

P = 0.1
EPOCH_S = 1_760_000_000.0
FIRST = round(EPOCH_S / P)
SLACK_S = 1e-4  # rounding of present times in float seconds


class TickSource:
    """A source whose frames show their tick."""

    preloaded = True

    def read_frame(self, tick: int) -> Frame:
        return Frame(np.full((1, 1, 3), tick % 256, np.uint8), tick)


class World:
    """A monotonic clock, and the estimated site's clock, whose offset changes."""

    def __init__(self) -> None:
        self.now_s, self.offset_s = 50.0, EPOCH_S - 50.0
        self.epoch = 0

    def monotonic(self) -> float:
        return self.now_s

    def clock(self) -> SiteTime:
        return SiteTime(self.epoch, self.now_s + self.offset_s)

    def ticks(self, frames: StoredFrames, seconds: float) -> list[int]:
        until_s, taken = self.now_s + seconds, []
        while (due_s := frames.due_s()) < until_s:
            self.now_s = max(self.now_s, due_s)
            taken.append(frames.take().sample)
        self.now_s = until_s
        return taken


# -------------------------------------------------------------- stored frames


def test_a_stored_frame_is_taken_at_every_tick_of_the_site() -> None:
    """Two devices whose own clocks differ by an hour take the same ticks at the same moments."""
    taken = []
    for start_s in (50.0, 3650.0):
        world = World()
        world.now_s, world.offset_s = start_s, EPOCH_S - start_s
        frames = StoredFrames(TickSource(), P, world.clock, world.monotonic)
        taken.append(world.ticks(frames, 1.05))
    assert taken[0] == taken[1] == list(range(FIRST + 1, FIRST + 11))


@pytest.mark.parametrize("step_s", [0.03, -0.03, 0.07, -0.07, 0.099, -0.099, -0.15])
def test_small_changes_of_the_offset_repeat_no_tick(step_s: float) -> None:
    world = World()
    frames = StoredFrames(TickSource(), P, world.clock, world.monotonic)
    before = world.ticks(frames, 1.05)
    world.offset_s += step_s
    after = world.ticks(frames, 1.05)
    ticks = before + after
    assert ticks == sorted(set(ticks))
    # exactly the ticks that the site's time passes
    assert ticks == list(range(FIRST + 1, FIRST + 1 + int((2.1 + step_s + SLACK_S) / P)))


def test_a_change_between_due_and_take_repeats_no_tick() -> None:
    world = World()
    frames = StoredFrames(TickSource(), P, world.clock, world.monotonic)
    world.now_s = frames.due_s()
    first = frames.take().sample
    world.now_s = frames.due_s()
    world.offset_s -= 0.002
    assert frames.take().sample == first + 1


def test_many_small_changes_lose_no_tick() -> None:
    generator = np.random.default_rng(1)
    world = World()
    frames = StoredFrames(TickSource(), P, world.clock, world.monotonic)
    ticks = []
    for _ in range(300):
        world.offset_s += generator.uniform(-0.004, 0.004)
        ticks += world.ticks(frames, generator.uniform(0, 0.3))
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))


def test_a_device_that_stands_still_takes_the_ticks_of_the_last_moments() -> None:
    world = World()
    frames = StoredFrames(TickSource(), P, world.clock, world.monotonic)
    before = world.ticks(frames, 1.05)
    world.now_s += 0.15  # of one tick: it is taken late
    assert world.ticks(frames, 0.1)[0] == before[-1] + 1
    before = world.ticks(frames, 1.0)
    world.now_s += 10.03
    resumed_s = world.clock().time_s
    resumed = world.ticks(frames, 0.55)
    assert LATENCY_S - P <= resumed_s - resumed[0] * P < LATENCY_S
    assert resumed == list(range(resumed[0], resumed[0] + len(resumed)))


def test_a_clock_that_is_set_is_followed() -> None:
    world = World()
    frames = StoredFrames(TickSource(), P, world.clock, world.monotonic)
    world.ticks(frames, 1.05)
    world.offset_s += 1000.0
    old, *ticks = world.ticks(frames, 0.5)
    assert (FIRST + 10_010 - old) * P < LATENCY_S
    assert ticks == list(range(old + 1, FIRST + 10_015 + 1))
    world.offset_s -= 5000.0  # the wait for its ticks is at most two periods
    assert len(world.ticks(frames, 1.0)) >= 8


def test_no_stored_tick_comes_twice_where_a_new_epoch_begins() -> None:
    world = World()
    frames = StoredFrames(TickSource(), P, world.clock, world.monotonic)
    before = world.ticks(frames, 3.05)
    world.offset_s, world.epoch = world.offset_s - 2.0, 1
    after = world.ticks(frames, 3.0)
    assert [find_epoch(sample) for sample in after] == [1] * len(after)
    assert [find_tick(sample) for sample in after] == list(range(FIRST + 11, FIRST + 41))
    assert set(before).isdisjoint(after)


# ---------------------------------------------------------------- live frames


class Camera:
    """Frames every `gap_s`, from `start_s` of the site's time, offered to `NearestFrames`."""

    def __init__(self, gap_s: float, *, start_s: float = EPOCH_S, late_s: float = 0.03) -> None:
        self.gap_s, self.taken_s, self.late_s = gap_s, start_s, late_s
        self.epoch = 0
        self.counts = make_counts()
        self.nearest = NearestFrames[float](P, self.counts)
        self.samples: list[tuple[int, float]] = []
        self.read: list[float] = []

    def run(self, seconds: float, jitter: np.random.Generator | None = None) -> None:
        until_s = self.taken_s + seconds
        while self.taken_s < until_s:
            self.offer(self.taken_s)
            self.taken_s += self.gap_s * (1 if jitter is None else jitter.uniform(0.5, 1.5))

    def offer(self, taken_s: float, late_s: float | None = None) -> None:
        def read() -> float:
            self.read.append(taken_s)
            return taken_s

        age_s = self.late_s if late_s is None else late_s
        for sample in self.nearest.offer(SiteTime(self.epoch, taken_s + age_s), age_s, read):
            assert sample.image == pytest.approx(sample.taken_s, abs=1e-6)
            self.samples.append((sample.number, sample.taken_s))

    def check(self) -> None:
        ticks = [tick for tick, _ in self.samples]
        assert ticks == sorted(set(ticks))
        for tick, taken_s in self.samples:
            assert abs(taken_s - tick * P) <= P / 2 + SLACK_S


@pytest.mark.parametrize("fps", [60, 30, 25, 24, 15, 12, 11])
@pytest.mark.parametrize("phase", [0.0, 0.013, 0.049, 0.05, 0.08])
def test_each_tick_has_the_frame_nearest_to_it(fps: float, phase: float) -> None:
    camera = Camera(1 / fps, start_s=EPOCH_S + phase)
    camera.run(10.0)
    camera.check()
    all_s = EPOCH_S + phase + np.arange(10 * fps) / fps
    for tick, taken_s in camera.samples[1:]:  # the rate is unknown at the first frame
        assert abs(taken_s - tick * P) <= np.abs(all_s - tick * P).min() + SLACK_S
    assert len(camera.samples) >= 98  # no tick is left out
    assert len(camera.samples) + camera.counts["frames_dropped"] >= len(all_s) - 1
    assert camera.counts["frames_stale"] == 0
    assert len(camera.read) <= 2 * len(camera.samples) + 1  # other frames are not decoded


def test_a_slow_camera_gives_each_frame_once() -> None:
    camera = Camera(0.37)
    camera.run(36.9)
    camera.check()
    assert len(camera.samples) == 100
    assert camera.counts["frames_dropped"] == 0


def test_two_cameras_show_the_same_instant() -> None:
    """The frames of a tick from cameras of other rate, phase and delay are at most half a frame of
    each camera apart."""
    one = Camera(1 / 30, start_s=EPOCH_S + 0.011, late_s=0.02)
    other = Camera(1 / 25, start_s=EPOCH_S + 0.027, late_s=0.15)
    one.run(20.0)
    other.run(20.0)
    ones, others = dict(one.samples), dict(other.samples)
    both = ones.keys() & others.keys()
    assert len(both) >= 197
    assert max(abs(ones[tick] - others[tick]) for tick in both) <= (1 / 30 + 1 / 25) / 2 + SLACK_S


def test_irregular_frames_repeat_nothing_and_lose_little() -> None:
    camera = Camera(1 / 30)
    camera.run(60.0, np.random.default_rng(3))
    camera.check()
    assert len(camera.samples) >= 0.98 * 600


@pytest.mark.parametrize("step_s", [0.03, -0.03, 0.09, -0.09, -0.19])
def test_small_changes_of_the_offset_repeat_no_live_tick(step_s: float) -> None:
    camera = Camera(1 / 30)
    camera.run(3.0)
    camera.taken_s += step_s
    camera.run(3.0)
    camera.check()
    assert len(camera.samples) >= int((6.0 + min(step_s, 0)) / P) - 1


def test_a_live_clock_that_is_set_back_is_followed() -> None:
    camera = Camera(1 / 30)
    camera.run(3.0)
    count = len(camera.samples)
    camera.taken_s -= 3600
    camera.run(3.0)
    assert len(camera.samples) >= count + 29


def test_no_live_tick_comes_twice_where_a_new_epoch_begins() -> None:
    camera = Camera(1 / 30)
    camera.run(3.0)
    camera.taken_s -= 3600
    camera.epoch = 1
    camera.run(3700.0)
    numbers = [number for number, _ in camera.samples]
    assert len(numbers) >= 30 + 36_990
    assert numbers == sorted(set(numbers))
    assert find_epoch(numbers[-1]) == 1
    assert abs(find_tick(numbers[-1]) * P - camera.samples[-1][1]) <= P / 2 + SLACK_S


def test_stale_frames_do_not_become_samples() -> None:
    camera = Camera(0.04)
    camera.run(1.0)
    count = len(camera.samples)
    start_s = camera.taken_s
    for i in range(50):  # a stall of two seconds, then all at once
        camera.offer(start_s + i * 0.04, late_s=2.0 - i * 0.04)
    fresh = [taken_s for _, taken_s in camera.samples[count:]]
    assert len(fresh) >= 1
    assert min(fresh) >= start_s + 2.0 - LATENCY_S - SLACK_S
    assert camera.counts["frames_stale"] >= 44
    camera.check()


# ---------------------------------------------------------------------- the pace


@pytest.mark.parametrize("late_s", [0.0, 0.15, 0.35, 1.0])
def test_a_late_camera_takes_only_ticks_that_the_others_take(late_s: float) -> None:
    """With 50 ticks a second and every fourth one taken; the camera stalls each half second."""
    history = PaceHistory((Pace(256, 0),))
    world, counts = World(), make_counts()
    frames = StoredFrames(
        TickSource(), 0.02, world.clock, world.monotonic, pace=lambda: history, counts=counts
    )
    taken = []
    for _ in range(10):
        taken += world.ticks(frames, 0.5)
        world.now_s += late_s
    assert {tick % 4 for tick in taken} == {0}
    assert taken == sorted(set(taken))
    assert counts["frames_shed"] == pytest.approx(3 / 4 * (taken[-1] - taken[0]), abs=4)
    skipped = (taken[-1] - taken[0]) // 4 + 1 - len(taken)
    assert counts["frames_late"] == skipped
    assert (skipped > 0) == (late_s > LATENCY_S)


def test_a_new_pace_counts_from_its_sample_on() -> None:
    world, history = World(), [PaceHistory()]
    frames = StoredFrames(TickSource(), P, world.clock, world.monotonic, pace=lambda: history[0])
    before = world.ticks(frames, 1.05)
    history[0] = history[0].add(Pace(512, before[-1] + 5))
    after = world.ticks(frames, 2.0)
    expected = list(range(before[-1] + 1, before[-1] + 5))
    expected += [t for t in range(before[-1] + 5, before[-1] + 21) if t % 2 == 0]
    assert after == expected


def test_live_frames_of_ticks_that_are_not_taken_are_not_decoded() -> None:
    camera = Camera(1 / 30)
    camera.nearest = NearestFrames[float](P, camera.counts, lambda: PaceHistory((Pace(256, 0),)))
    camera.run(20.0)
    camera.check()
    assert {tick % 4 for tick, _ in camera.samples} == {0}
    assert len(camera.samples) >= 49
    assert len(camera.read) <= 2 * len(camera.samples) + 1
    assert camera.counts["frames_shed"] >= 147
