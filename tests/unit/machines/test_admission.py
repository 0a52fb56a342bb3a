"""One sender of several that sends nonsense does not take the place of the others."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.core.site_time import make_sample_id
from ddnn.machines.admission import MAX_RATE, SPARE_PER_S, Admission

CAMERAS = ["cam1", "cam2", "cam3", "cam4"]
FRONT = make_sample_id(0, 17_800_000_000)


class Site:
    """Cameras that take every tick, and the samples that are open."""

    def __init__(self, rate_hz: float = 10.0, cameras: list[str] = CAMERAS) -> None:
        self.admission = Admission(CAMERAS)
        self.rate_hz, self.cameras = rate_hz, cameras
        self.now_s, self.front = 0.0, FRONT
        self.opened: set[int] = set()
        self.refused: list[str] = []

    def report(self, camera: str, sample: int) -> bool:
        if sample in self.opened:
            self.admission.note(camera, sample, self.now_s, self.now_s)
            return True
        if self.admission.admit(camera, sample, self.now_s, self.now_s):
            self.opened.add(sample)
            return True
        self.refused.append(camera)
        return False

    def tick(self, cameras: list[str] | None = None, shift: int = 0) -> None:
        self.now_s += 1 / self.rate_hz
        self.front += 1
        for camera in cameras or self.cameras:
            self.report(camera, self.front + shift)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * self.rate_hz)):
            self.tick()


@pytest.mark.parametrize("rate_hz", [0.2, 1.0, 10.0, 400.0, 1000.0])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_cameras_report_is_admitted(rate_hz: float, count: int) -> None:
    site = Site(rate_hz, CAMERAS[:count])
    site.run(max(10.0, 20 / rate_hz))
    assert site.refused == []


@pytest.mark.parametrize("from_start", [True, False])
@pytest.mark.parametrize("flooding", [["cam1"], ["cam1", "cam2"]])
def test_a_flood_of_random_numbers_is_refused(flooding: list[str], from_start: bool) -> None:
    site, random = Site(), np.random.default_rng(0)
    if not from_start:
        site.run(5.0)
    honest = [camera for camera in CAMERAS if camera not in flooding]
    site.cameras = honest
    taken = 0
    for _ in range(100):
        site.tick()
        for number in random.integers(0, 2**53, 200):
            taken += site.report(flooding[int(number) % len(flooding)], int(number))
    assert set(site.refused) <= set(flooding)
    assert taken <= len(flooding)


def test_a_camera_whose_topic_is_flooded_reports_on() -> None:
    site, random = Site(), np.random.default_rng(0)
    site.run(5.0)
    for _ in range(100):
        for number in random.integers(0, 2**53, 200):
            assert not site.report("cam1", int(number))
        site.refused.clear()
        site.tick()
        assert site.refused == []


def test_samples_of_the_future_are_not_opened() -> None:
    """They would be answered by one camera before the others report."""
    site = Site()
    site.run(5.0)
    for ahead in range(5, 200):
        assert not site.report("cam1", site.front + ahead)
    site.refused.clear()
    site.run(5.0)
    assert site.refused == []


def test_a_sender_opens_a_bounded_number_of_samples() -> None:
    """It counts up as fast as it can, and no other camera is there."""
    site = Site(cameras=["cam1"])
    site.run(5.0)
    opened = len(site.opened)
    for n in range(20_000):
        site.now_s += 5e-4
        site.report("cam1", site.front + 1 + n)
    assert len(site.opened) - opened < 11 * (MAX_RATE + SPARE_PER_S)
    others = Site()
    others.run(5.0)
    opened = len(others.opened)
    for n in range(2_000):
        others.now_s += 5e-4
        others.report("cam1", others.front + 1 + n)
    assert len(others.opened) - opened < 60


@pytest.mark.parametrize("jump", [3_000_000, -40_000, make_sample_id(1, -7_000_000)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_all_follow_where_the_sites_time_jumps(jump: int, count: int) -> None:
    site = Site(cameras=CAMERAS[:count])
    site.run(5.0)
    site.front += jump
    site.run(3.0)
    site.refused.clear()
    site.run(5.0)
    assert site.refused == []


def test_a_camera_that_sees_motion_alone_is_admitted() -> None:
    site = Site()
    site.run(5.0)
    for _ in range(600):
        site.tick(["cam3"])
    assert site.refused == []


def test_cameras_that_all_number_anew_lose_one_sample_at_most() -> None:
    """The site's ticks are three times as many from one second to the next."""
    site = Site()
    site.run(5.0)
    site.front, site.rate_hz = 3 * site.front, 30.0
    site.tick()
    site.refused.clear()
    site.run(2.0)
    assert site.refused == []


def test_half_of_the_cameras_do_not_move_the_site() -> None:
    site = Site()
    site.run(5.0)
    for _ in range(20):
        site.tick(CAMERAS[:2])
        moved = [site.report(camera, 3 * site.front) for camera in CAMERAS[2:]]
        assert moved == [False, False]
