"""Aggregation, entropy, the score formats and the paper's cost formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.errors import ConfigError
from ddnn.exits.aggregate import SCHEMES, aggregate
from ddnn.exits.cost import compute_communication_bytes
from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.inference import count_payload_bytes
from ddnn.exits.measure import compute_bytes_per_device
from ddnn.exits.scores import ScoreFormat
from tests.unit.exits.exit_builders import make_manifest

MEMBERS = 4


def aggregate_directly(
    values: list[np.ndarray | None], scheme: str, shape: tuple[int, ...]
) -> np.ndarray:
    """Aggregate element by element, as the paper defines it, without absent members (CC: zeros)."""
    present = [value for value in values if value is not None]
    if scheme == "CC":
        parts = [np.zeros(shape) if value is None else value for value in values]
        return np.concatenate(parts, axis=-1)
    out = np.zeros(shape)
    for index in np.ndindex(*shape):
        column = [float(value[index]) for value in present]
        if column:
            out[index] = max(column) if scheme == "MP" else math.fsum(column) / len(column)
    return out


@pytest.mark.parametrize("mask", range(1 << MEMBERS))
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(3,), (2, 2, 3)])
def test_aggregation_equals_the_definition_of_the_paper(
    scheme, shape: tuple[int, ...], mask: int
) -> None:
    generator = np.random.default_rng(mask)
    views = generator.normal(-2, 1, (MEMBERS, *shape)).astype(np.float32)
    values = [view if mask >> i & 1 else None for i, view in enumerate(views)]
    fused = aggregate(values, scheme, shape)
    assert fused.dtype == np.float32
    np.testing.assert_allclose(fused, aggregate_directly(values, scheme, shape), rtol=1e-6)


def test_an_absent_member_does_not_count_as_a_zero_score() -> None:
    """All scores are negative: a zero for the absent member would be the maximum."""
    value = np.array([-3, -1, -2], np.float32)
    for scheme in ("MP", "AP"):
        np.testing.assert_array_equal(aggregate([None, value, None], scheme, (3,)), value)


def test_raw_images_are_fused_as_float_values() -> None:
    images = [np.full((2, 2, 3), v, np.uint8) for v in (255, 254)]
    assert aggregate(images, "AP", (2, 2, 3)).max() == 254.5
    assert aggregate(images, "MP", (2, 2, 3)).dtype == np.float32


# -------------------------------------------------------------------- entropy


@pytest.mark.parametrize("classes", [2, 3, 8, 1000])
def test_entropy_is_one_for_uniform_and_zero_for_certain_probabilities(classes: int) -> None:
    uniform = normalized_entropy(np.full(classes, 1 / classes, np.float32))
    assert uniform == pytest.approx(1, abs=1e-6)
    certain = np.zeros(classes, np.float32)
    certain[1] = 1
    assert normalized_entropy(certain) == 0


@given(
    st.lists(st.floats(-1e9, 1e9, width=32), min_size=2, max_size=9),
)
def test_entropy_is_within_0_and_1_for_all_accepted_scores(scores: list[float]) -> None:
    probabilities = softmax(np.array(scores, np.float32))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert (probabilities >= 0).all()
    eta = normalized_entropy(probabilities)
    assert 0 <= eta <= 1
    assert eta.dtype == np.float32


def test_extreme_scores_give_finite_probabilities() -> None:
    largest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        for scores in ([largest, 0, -largest], [-largest] * 3, [largest] * 3, [-1e38, 1e38, 0]):
            probabilities = softmax(np.array(scores, np.float32))
            assert np.isfinite(probabilities).all()
            assert 0 <= normalized_entropy(probabilities) <= 1


def test_entropy_equals_a_direct_computation() -> None:
    probabilities = [0.5, 0.25, 0.25]
    expected = -sum(p * math.log(p) for p in probabilities) / math.log(3)
    assert normalized_entropy(np.array(probabilities, np.float32)) == pytest.approx(expected)


def test_a_batch_equals_its_rows() -> None:
    scores = np.random.default_rng(1).normal(0, 3, (5, 4)).astype(np.float32)
    rows = [normalized_entropy(softmax(row)) for row in scores]
    np.testing.assert_allclose(normalized_entropy(softmax(scores)), rows, rtol=1e-6)


# -------------------------------------------------------------------- formats


@given(
    scores=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20),
    low=st.floats(-20, 0),
    width=st.floats(0.01, 40),
)
def test_uint8_errs_by_half_a_step_at_most_and_saturates(
    scores: list[float], low: float, width: float
) -> None:
    form = ScoreFormat("uint8", low, low + width)
    array = np.array(scores, np.float32)
    wire = form.encode(array)
    assert wire.dtype == np.uint8
    back = form.decode(wire)
    assert back.dtype == np.float32
    clipped = np.clip(array, low, low + width)
    assert np.abs(back - clipped).max() <= width / 255 / 2 * 1.001 + 1e-5


def test_uint8_maps_its_bounds_to_0_and_255() -> None:
    form = ScoreFormat("uint8", -4, 6)
    wire = form.encode(np.array([-1e9, -4, 6, 1e9], np.float32))
    assert wire.tolist() == [0, 0, 255, 255]
    assert form.decode(wire).tolist() == pytest.approx([-4, -4, 6, 6])


def test_float16_saturates_instead_of_becoming_infinite() -> None:
    form = ScoreFormat("float16")
    back = form.decode(form.encode(np.array([1e6, -1e6, 1.5], np.float32)))
    assert back.tolist() == [65504, -65504, 1.5]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9))
def test_float32_is_exact_and_float16_is_close(scores: list[float]) -> None:
    array = np.array(scores, np.float32)
    exact = ScoreFormat()
    np.testing.assert_array_equal(exact.decode(exact.encode(array)), array)
    half = ScoreFormat("float16")
    np.testing.assert_allclose(half.decode(half.encode(array)), array, rtol=2**-11, atol=1e-7)


def test_decoded_scores_encode_to_the_same_values() -> None:
    """Decoding and encoding again changes nothing: all receivers compute with the same numbers."""
    scores = np.random.default_rng(3).normal(0, 9, 500).astype(np.float32)
    for form in (ScoreFormat(), ScoreFormat("float16"), ScoreFormat("uint8", -11.3, 17.9)):
        wire = form.encode(scores)
        np.testing.assert_array_equal(form.encode(form.decode(wire)), wire)


def test_bytes_per_score() -> None:
    sizes = {name: ScoreFormat(name).bytes_per_score for name in ("float32", "float16", "uint8")}
    assert sizes == {"float32": 4, "float16": 2, "uint8": 1}
    for name, size in sizes.items():
        assert ScoreFormat(name).encode(np.zeros(7, np.float32)).nbytes == 7 * size


# ------------------------------------------------------------------------ cost


@pytest.mark.parametrize(
    ("exited", "expected"),
    [(0, 140), (1, 139), (3, 138), (5, 136), (39, 111), (104, 62), (142, 34), (171, 12)],
)
def test_communication_bytes_equal_table_2_of_the_paper(exited: int, expected: int) -> None:
    """Paper notes A9: f = 4, o = 256, of 171 samples."""
    assert round(compute_communication_bytes(3, exited / 171, 4, 256)) == expected


@pytest.mark.parametrize(
    ("filters", "exited", "expected"),
    [(1, 0.702, 14), (2, 0.737, 16), (4, 0.708, 21), (8, 0.714, 30)],
)
def test_communication_bytes_equal_figure_9_of_the_paper(
    filters: int, exited: float, expected: int
) -> None:
    assert round(compute_communication_bytes(3, exited, filters, 64)) == expected


def test_the_reduction_equals_the_headline_of_the_paper() -> None:
    assert round(32 * 32 * 3 / compute_communication_bytes(3, 0, 4, 256), 1) == 21.9


@pytest.mark.parametrize("name", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_formula_sweep_and_samples_count_the_same_bytes(name, share: float) -> None:
    """The formula, the sweep's bytes and the count of single samples are the same number."""
    form = ScoreFormat(name)
    manifest = make_manifest("c", 3, score_format=form)
    expected = compute_communication_bytes(3, share, 3, 4, form.bytes_per_score)
    assert compute_bytes_per_device(manifest, form, share) == expected
    local = count_payload_bytes(manifest, "local", 0b111)
    cloud = count_payload_bytes(manifest, "cloud", 0b111)
    assert (share * local + (1 - share) * cloud) / 3 == expected
    assert count_payload_bytes(manifest, "cloud", 0b101) * 3 == cloud * 2


def test_without_local_exit_the_raw_image_travels() -> None:
    manifest = make_manifest("a", 3)
    assert compute_bytes_per_device(manifest, ScoreFormat(), 0.0) == 48
    assert count_payload_bytes(manifest, "cloud", 0b011) == 96


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_what_is_no_share_of_the_samples_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="local_exit_share"):
        compute_communication_bytes(3, share, 3, 4)


@pytest.mark.parametrize("scheme", ["mp", "", "max"])
def test_an_unknown_scheme_is_refused(scheme: str) -> None:
    with pytest.raises(ConfigError, match="MP, AP, CC"):
        aggregate([np.zeros(3, np.float32)], scheme, (3,))  # type: ignore[arg-type]
