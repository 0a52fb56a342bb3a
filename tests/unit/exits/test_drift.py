"""Drift: undisturbed samples raise no alarm, a camera that sees something else does."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.exits.drift import (
    FALSE_ALARMS,
    LEAST_SAMPLES,
    WINDOWS,
    Observation,
    find_deviations,
    measure_reference,
)
from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.sample import make_votes
from tests.simulation.small_hierarchy import make_manifest

HIERARCHY = make_configuration("c", 6)
CLASSES = 5
VALIDATION = 800


def draw(
    rng: np.random.Generator,
    samples: int,
    *,
    dark: int | None = None,
    held: int = 1,
    shares: list[float] | None = None,
) -> np.ndarray:
    """Scores [samples, devices, classes] of cameras that each see the class poorly.

    dark: the number of a camera that names the first class whatever stands before it. held: so many
    samples in a row show the same thing, and differ by little noise only. shares: of the classes.
    """
    things = -(-samples // held)
    truth = rng.choice(CLASSES, things, p=shares)
    scores = rng.normal(size=(things, 6, CLASSES))
    scores[np.arange(things)[:, None], np.arange(6), truth[:, None]] += 1.5
    scores = np.repeat(scores, held, axis=0)[:samples]
    scores += 0.03 * rng.normal(size=scores.shape)
    if dark is not None:
        scores[:, dark] = [2.0, 0, 0, 0, 0] + 0.3 * rng.normal(size=(samples, CLASSES))
    return scores.astype(np.float32)


def observe(scores: np.ndarray) -> list[Observation]:
    """What the edge stores of such samples."""
    first = scores.mean(1)
    eta = normalized_entropy(softmax(first))
    return [
        Observation(
            int(first[n].argmax()),
            1 - float(eta[n]),
            make_votes(dict(zip(HIERARCHY.devices, scores[n], strict=True))),
        )
        for n in range(len(scores))
    ]


def refer(scores: np.ndarray):
    return measure_reference(HIERARCHY, scores, scores.mean(1))


def list_alarms(reference, observations) -> set[tuple[str, str]]:
    return {
        (one.voter, one.kind) for one in find_deviations(reference, observations) if one.is_alarm
    }


def test_the_validation_data_deviate_from_themselves_by_nothing() -> None:
    scores = draw(np.random.default_rng(1), WINDOWS[0])
    for one in find_deviations(refer(scores), observe(scores)):
        assert one.share == pytest.approx(one.expected, abs=0.01)
        assert abs(one.effect) < 0.02
        assert not one.is_alarm


@pytest.mark.parametrize("held", [1, 20, 1000])
def test_undisturbed_samples_raise_no_alarm(held: int) -> None:
    """However long the same thing stands before the cameras, over 10,000 samples and 5 networks."""
    rng = np.random.default_rng(held)
    checks = 0
    for _ in range(5):
        reference = refer(draw(rng, VALIDATION))
        seen = observe(draw(rng, 10_000, held=held))
        for end in range(500, len(seen) + 1, 500):
            assert list_alarms(reference, seen[:end]) == set()
            checks += 1
    assert checks * FALSE_ALARMS < 0.2  # so that even one alarm would be too many


def test_chance_makes_as_few_alarms_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bound on small differences, so that only the probability decides."""
    monkeypatch.setattr("ddnn.exits.drift.EFFECT", 0.0)
    monkeypatch.setattr("ddnn.exits.drift.FALSE_ALARMS", 0.05)
    rng = np.random.default_rng(3)
    alarms = sum(
        bool(list_alarms(refer(draw(rng, VALIDATION)), observe(draw(rng, WINDOWS[0]))))
        for _ in range(300)
    )
    assert alarms <= 0.05 * 300


def test_other_shares_of_the_classes_are_no_drift() -> None:
    rng = np.random.default_rng(5)
    reference = refer(draw(rng, VALIDATION))
    assert not list_alarms(
        reference, observe(draw(rng, 2000, shares=[0.8, 0.05, 0.05, 0.05, 0.05]))
    )


@pytest.mark.parametrize("held", [1, 3])
def test_a_camera_in_the_dark_is_found_within_a_window(held: int) -> None:
    rng = np.random.default_rng(7)
    reference = refer(draw(rng, VALIDATION))
    before, after = observe(draw(rng, 3000)), observe(draw(rng, WINDOWS[0], dark=2, held=held))
    assert ("cam3", "disagrees") in list_alarms(reference, before + after)
    disturbed = {voter for voter, _ in list_alarms(reference, before + after)}
    assert disturbed <= {"cam3", "local"}


def test_one_thing_that_stands_still_is_no_evidence() -> None:
    """A camera that does not see it disagrees in every sample, which is one observation."""
    rng = np.random.default_rng(9)
    reference = refer(draw(rng, VALIDATION))
    assert not list_alarms(reference, observe(draw(rng, 2000, dark=2, held=2000)))


def test_too_few_samples_say_nothing() -> None:
    rng = np.random.default_rng(11)
    reference = refer(draw(rng, VALIDATION))
    assert find_deviations(reference, observe(draw(rng, LEAST_SAMPLES - 1, dark=1))) == []


def test_a_class_that_the_first_exit_never_named_is_passed_over() -> None:
    rng = np.random.default_rng(13)
    reference = refer(draw(rng, VALIDATION, shares=[0.5, 0.5, 0, 0, 0]))
    strange = observe(draw(rng, WINDOWS[0], shares=[0, 0, 0, 0, 1.0]))
    assert all(not one.is_alarm for one in find_deviations(reference, strange))


def test_without_sections_on_devices_the_first_exit_is_the_only_voter() -> None:
    scores = draw(np.random.default_rng(15), VALIDATION)
    hierarchy = make_configuration("a")
    reference = measure_reference(hierarchy, scores[:, :1], scores.mean(1))
    assert (reference.exit, reference.devices) == (hierarchy.exits[0], {})
    found = find_deviations(reference, observe(scores))
    assert [(one.voter, one.kind) for one in found] == [(hierarchy.exits[0], "unsure")]


def test_labels_that_cannot_be_are_passed_over() -> None:
    """Whoever answers is another process."""
    scores = draw(np.random.default_rng(17), VALIDATION)
    strange = [one._replace(label=label) for one in observe(scores) for label in (-1, 5, 10**6)]
    assert find_deviations(refer(scores), strange) == []


@pytest.mark.parametrize("change", ["", "a class more", "another device"])
def test_a_bundle_with_the_behaviour_of_another_is_refused(change: str) -> None:
    reference = refer(draw(np.random.default_rng(19), VALIDATION))
    manifest = make_manifest(HIERARCHY)
    count = len(manifest.classes)
    devices = {device: of[:count] for device, of in reference.devices.items()}
    if change == "another device":
        devices["cam7"] = devices.pop("cam6")
    answers = reference.answers[: count + (change == "a class more")]
    behaviour = msgspec.structs.replace(reference, answers=answers, devices=devices)
    if not change:
        assert msgspec.structs.replace(manifest, behaviour=behaviour).behaviour == behaviour
        return
    with pytest.raises(ConfigError, match="of other devices or classes"):
        msgspec.structs.replace(manifest, behaviour=behaviour)
