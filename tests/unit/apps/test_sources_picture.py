"""Region of interest, scaling and the motion gate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ddnn.core.preprocessing import WHOLE, Preprocessing, Roi, find_box, parse_roi
from ddnn.errors import ConfigError
from ddnn.runtime.pictures import DEFAULT, make_input
from device_app.picture import MEMORY_S, NOISE, MotionGate, compute_brightness, measure_change

SHAPE = (32, 32, 3)


def test_scaling_takes_the_middle_and_averages() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 32:96] = (np.indices((64, 64)).sum(0) % 2 * 200)[..., None]  # a fine chess board
    assert (make_input(image, SHAPE) == 100).all()
    same = np.ones(SHAPE, np.uint8)
    assert make_input(same, SHAPE) is same
    assert make_input(np.ones((7, 5, 3), np.uint8), SHAPE).shape == SHAPE


def test_stretching_takes_all_of_the_region() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[:, 80:] = 200
    stretched = make_input(image, SHAPE, Preprocessing(fit="stretch"))
    assert (stretched[:, :16] == 0).all()
    assert (stretched[:, 16:] == 200).all()
    right = Roi(0.5, 0, 0.5, 1)
    assert (make_input(image, SHAPE, Preprocessing(fit="stretch"), right) == 200).all()


def test_scaling_reverses_bgr() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[...] = (10, 20, 30)
    for size in (image, image[:32, :32]):
        reversed_ = make_input(size, SHAPE, bgr=True)
        assert (reversed_ == (30, 20, 10)).all()
        assert reversed_.flags.c_contiguous


def test_only_the_region_of_interest_reaches_the_section() -> None:
    """Pixels outside are white, so that any of them would change the mean."""
    image = np.full((720, 1280, 3), 255, np.uint8)
    image[180:540, 320:640] = 7
    assert (make_input(image, SHAPE, DEFAULT, Roi(0.25, 0.25, 0.25, 0.5)) == 7).all()
    assert (make_input(image, SHAPE) != 7).any()


@pytest.mark.parametrize("shape", [(32, 32, 3), (48, 64, 3), (64, 48, 3)])
@pytest.mark.parametrize(
    "roi", [WHOLE, Roi(0.25, 0, 0.5, 1), Roi(0.9, 0.9, 0.1, 0.1), Roi(1 - 1e-9, 0, 1e-9, 1)]
)
@pytest.mark.parametrize("size", [(720, 1280), (480, 640), (1, 1), (3, 1000)])
def test_the_region_lies_in_the_frame_and_has_the_aspect(
    size: tuple[int, int], roi: Roi, shape: tuple[int, int, int]
) -> None:
    left, top, right, bottom = find_box(*size, shape, roi)
    assert 0 <= left < right <= size[1]
    assert 0 <= top < bottom <= size[0]
    if min(right - left, bottom - top) > 20:
        assert (right - left) / (bottom - top) == pytest.approx(shape[1] / shape[0], rel=0.05)
    assert make_input(np.zeros((*size, 3), np.uint8), shape, DEFAULT, roi).shape == shape


def test_a_region_is_parsed() -> None:
    assert parse_roi("") == WHOLE
    assert parse_roi("0.25, 0,0.5,1") == (0.25, 0, 0.5, 1)
    assert parse_roi("0.7,0,0.3,1") == (0.7, 0, 0.3, 1)  # 0.7 + 0.3 is a little less than 1


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "0,0,1",
        "0,0,1,1,1",
        "0,0,0,1",
        "0,0,1,0",
        "-0.1,0,1,1",
        "0.5,0,0.6,1",
        "0,0.5,1,0.6",
        "nan,0,1,1",
        "0,0,nan,1",
        "inf,0,1,1",
        "0,0,1,-1",
        "100,100,500,500",
    ],
)
def test_a_region_outside_the_frame_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--roi .* fractions"):
        parse_roi(text)


# ---------------------------------------------------------------------- motion


def make_frame(block: int = 0, value: int = 200) -> np.ndarray:
    """Make a grey picture of 32x32 pixels with `block` x 4 of another brightness."""
    image = np.full(SHAPE, 100, np.uint8)
    image[:block, :4] = value
    return image


def test_measure_change_is_the_share_of_pixels_that_changed() -> None:
    before = compute_brightness(make_frame())
    for value, share in ((200, 64 / 1024), (100 + NOISE, 0), (102 + NOISE, 64 / 1024)):
        assert measure_change(compute_brightness(make_frame(16, value)), before) == share
    white = np.full((2, 2, 3), 255, np.uint8)
    np.testing.assert_allclose(compute_brightness(white), 255, rtol=1e-5)


def pass_gate(images: list[np.ndarray], share: float, hold_s: float, step_s: float) -> list[bool]:
    gate = MotionGate(share, hold_s)
    return [gate.admit(image, 100 + step_s * i) for i, image in enumerate(images)]


def test_the_gate_is_open_at_first_and_for_the_hold_after_motion() -> None:
    seen = pass_gate([make_frame()] * 20, 0.01, hold_s=1.0, step_s=0.25)
    assert seen == [True] * 5 + [False] * 15
    at = 12
    images = [make_frame()] * at + [make_frame(16)] + [make_frame()] * 20
    assert pass_gate(images, 0.01, 1.0, 0.25)[at - 1 : at + 5] == [False] + [True] * 5
    assert pass_gate(images, 65 / 1024, 1.0, 0.25)[5:] == [False] * (len(images) - 5)
    assert pass_gate(images, 64 / 1024, 0.0, 0.25)[at] is True


def test_a_still_object_becomes_background() -> None:
    images = [make_frame()] * 20 + [make_frame(32)] * 100
    seen = pass_gate(images, 0.05, hold_s=0.0, step_s=0.1)
    assert seen[20]
    assert not any(seen[20 + int(2 * MEMORY_S / 0.1) :])


def test_slow_movement_adds_up() -> None:
    """An edge that moves a tenth of a pixel a frame is motion, although no two successive frames
    differ by more than noise."""
    images = []
    for i in range(100):
        image = np.full(SHAPE, 60, np.float32)
        edge = 4 + i / 10
        image[:, : int(edge)] = 160
        image[:, int(edge)] = 60 + 100 * (edge % 1)
        images.append(image.astype(np.uint8))
    greys = [compute_brightness(image) for image in images]
    assert max(measure_change(b, a) for a, b in itertools.pairwise(greys)) == 0
    assert all(pass_gate(images, 0.02, hold_s=1.0, step_s=0.1))


def test_noise_does_not_count_as_motion() -> None:
    generator = np.random.default_rng(0)
    images = [
        np.clip(make_frame() + generator.normal(0, 5, SHAPE), 0, 255).astype(np.uint8)
        for _ in range(50)
    ]
    assert not any(pass_gate(images, 0.005, hold_s=0.0, step_s=0.1)[1:])


def test_a_clock_that_is_set_back_does_not_close_the_gate() -> None:
    gate = MotionGate(0.01, 1.0)
    assert gate.admit(make_frame(), 1000.0)
    assert gate.admit(make_frame(16), 10.0)  # motion counts at any time
    assert gate.admit(make_frame(16), 10.5)
