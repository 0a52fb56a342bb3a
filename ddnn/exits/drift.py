"""Drift: whether a site's cameras and its first exit still behave as on the validation data.

Without labels, a camera that was moved, is dirty or stands in the dark shows in what it votes: it
names another class than all cameras together more often than it did on validation data, or it is
less often sure. Shares are compared by class of the first exit's answer, so that a site that sees
more of one class than the validation data held is no drift.

Two shares are compared on the arcsine scale, on which their variance does not depend on them:
h = 2 asin sqrt(p) - 2 asin sqrt(q) has the variance 1/n + 1/m (J. Cohen, Statistical Power Analysis
for the Behavioral Sciences, 2nd ed. 1988, Sec. 6.2; the correction for few counts is that of F. J.
Anscombe, Biometrika 35, 1948, 246-254). Samples that follow each other often show the same thing:
n is the number of independent ones, n (1 - r) / (1 + r) for the correlation r of neighbours (the
variance of the mean of a first-order autoregressive process).

Where most cameras are worse than on validation data, other things stand before all of them, which
the first exit shows; of a camera counts what it is worse by than the median of all.

An alarm is a difference that is not small (h of EFFECT or more) and that chance makes with a
probability of FALSE_ALARMS over all comparisons of one check, if samples are drawn as the
validation data were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import asin, sqrt
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.hierarchy import Exit, Hierarchy

WINDOWS = (400, 2000)  # the newest samples that are compared: a fault of now, and a slow one
LEAST_SAMPLES = 100
LEAST_INDEPENDENT = 30  # among them, for an alarm
FALSE_ALARMS = 0.001  # of all comparisons of one check
LEAST_DEVICES = 3  # by which one of them is told from all
EFFECT = 0.3  # between Cohen's small (0.2) and medium (0.5)
UNSURE_QUANTILE = 0.25  # of the certainty on validation data, below which a voter is unsure

Kind = Literal["disagrees", "unsure"]
Flags = NDArray[np.bool_]
Labels = NDArray[np.intp]
Certainty = NDArray[np.floating]


class ClassBehaviour(msgspec.Struct, frozen=True, array_like=True):
    """What a voter did in the validation samples that the first exit answers with one class."""

    samples: int
    disagrees: int  # in which the voter named another class
    bound: float  # below this certainty the voter counts as unsure
    unsure: int  # in which it was


Behaviour = tuple[ClassBehaviour, ...]


class Reference(msgspec.Struct, frozen=True):
    """The behaviour on validation data of the first exit and of each device, by class of the first
    exit's answer."""

    exit: Exit
    variance: float  # of the first exit's certainty
    answers: Behaviour
    devices: dict[str, Behaviour]  # empty without sections on devices


class Observation(NamedTuple):
    """A sample as the first exit judged it.

    certainty: 1 - eta. votes: by device its label and the probability of that
    """

    label: int
    certainty: float
    votes: Mapping[str, tuple[int, float]]


def make_observation(
    trace: Sequence[tuple[str, int, float]], votes: Mapping[str, tuple[int, float]]
) -> Observation | None:
    """The observation that an answer holds; None where no exit of the edge judged the sample."""
    if not trace or trace[0][0] == "device":
        return None
    _, label, eta = trace[0]
    return Observation(label, 1 - eta, votes)


class Deviation(msgspec.Struct, frozen=True):
    """How often a voter disagrees with the first exit, or is unsure: now, and on validation data.

    samples: those that were compared. effect: Cohen's h, positive where it is worse now, and of a
    device beyond the median of all devices
    """

    voter: str  # a device, or the first exit
    kind: Kind
    samples: int
    share: float
    expected: float
    effect: float
    is_alarm: bool


def describe(deviation: Deviation) -> str:
    """What a voter does, and how often, as a phrase after its name."""
    what = {"disagrees": "names another class than all cameras together", "unsure": "is unsure"}
    return (
        f"{what[deviation.kind]} in {deviation.share:.0%} of {deviation.samples} samples, "
        f"on validation data in {deviation.expected:.0%}"
    )


def measure_reference(
    hierarchy: Hierarchy, devices: NDArray[np.float32], first: NDArray[np.float32]
) -> Reference:
    """Measure the behaviour on validation data.

    devices: float32 [samples, devices, classes], as the edge decodes them; first: float32
    [samples, classes], of the first exit with all members.
    """
    answers, certainty = first.argmax(-1), 1 - normalized_entropy(softmax(first))
    by_class = [answers == label for label in range(first.shape[-1])]

    def measure(labels: Labels, certainty: Certainty) -> Behaviour:
        return tuple(_measure_class(labels[of] != answers[of], certainty[of]) for of in by_class)

    votes = softmax(devices)
    return Reference(
        hierarchy.exits[0],
        float(certainty.var()),
        measure(answers, certainty),
        {
            device: measure(votes[:, number].argmax(-1), votes[:, number].max(-1))
            for number, device in enumerate(hierarchy.devices)
        }
        if hierarchy.local_exit
        else {},
    )


def _measure_class(disagrees: Flags, certainty: Certainty) -> ClassBehaviour:
    if not len(certainty):
        return ClassBehaviour(0, 0, 0.0, 0)
    bound = float(np.quantile(certainty, UNSURE_QUANTILE))
    return ClassBehaviour(
        len(certainty), int(disagrees.sum()), bound, int((certainty < bound).sum())
    )


def find_deviations(reference: Reference, observations: Sequence[Observation]) -> list[Deviation]:
    """Compare observations, the newest last, with the reference; only those with all votes count.

    One deviation for each voter and kind: that of the window that differs most. Nothing where there
    are too few observations.
    """
    comparisons = len(WINDOWS) * (1 + 2 * len(reference.devices))
    limit = NormalDist().inv_cdf(1 - FALSE_ALARMS / comparisons)
    whole = [one for one in observations if reference.devices.keys() <= one.votes.keys()]
    found: dict[tuple[str, Kind], tuple[float, Deviation]] = {}
    for size in WINDOWS:
        for score, deviation in _compare_window(reference, whole[-size:], limit):
            key = deviation.voter, deviation.kind
            if key not in found or score > found[key][0]:
                found[key] = score, deviation
    return [deviation for _, deviation in found.values()]


class _Share(NamedTuple):
    voter: str
    kind: Kind
    share: float
    expected: float
    effect: float


def _compare_window(
    reference: Reference, window: Sequence[Observation], limit: float
) -> Iterator[tuple[float, Deviation]]:
    """The deviations in one window, each with its score in standard deviations.

    limit: the score from which on a difference is an alarm
    """
    samples = np.array([behaviour.samples for behaviour in reference.answers])
    window = [one for one in window if 0 <= one.label < len(samples) and samples[one.label] > 0]
    if len(window) < LEAST_SAMPLES:
        return
    answers = np.array([one.label for one in window])
    mix = np.bincount(answers, minlength=len(samples)) / len(answers)
    used = mix > 0
    certainty = np.array([one.certainty for one in window])
    independent = _count_independent(certainty, reference.variance)
    variance = 1 / independent + float((mix[used] ** 2 / samples[used]).sum())
    shares = list(_measure_shares(reference, window, answers, certainty, mix))
    for one in shares:
        effect = one.effect - _find_common_effect(reference, shares, one)
        score = effect / sqrt(variance)
        is_alarm = effect >= EFFECT and score >= limit and independent >= LEAST_INDEPENDENT
        yield (
            score,
            Deviation(one.voter, one.kind, len(window), one.share, one.expected, effect, is_alarm),
        )


def _measure_shares(
    reference: Reference,
    window: Sequence[Observation],
    answers: Labels,
    certainty: Certainty,
    mix: NDArray[np.float64],
) -> Iterator[_Share]:
    """mix: the share of each class in the answers [samples] of the first exit."""

    def measure(voter: str, kind: Kind, flags: Flags, by_class: Behaviour) -> _Share:
        counts = np.array([getattr(of, kind) for of in by_class])
        samples = np.array([of.samples for of in by_class])
        expected = float(mix @ _estimate_share(counts, samples))
        share = float(_estimate_share(flags.sum(), flags.size))
        effect = 2 * asin(sqrt(share)) - 2 * asin(sqrt(expected))
        return _Share(voter, kind, float(flags.mean()), expected, effect)

    def measure_unsure(voter: str, certainty: Certainty, by_class: Behaviour) -> _Share:
        bounds = np.array([of.bound for of in by_class])[answers]
        return measure(voter, "unsure", certainty < bounds, by_class)

    yield measure_unsure(reference.exit, certainty, reference.answers)
    for device, by_class in reference.devices.items():
        votes = np.array([one.votes[device] for one in window])
        yield measure(device, "disagrees", votes[:, 0] != answers, by_class)
        yield measure_unsure(device, votes[:, 1], by_class)


def _find_common_effect(reference: Reference, shares: Sequence[_Share], one: _Share) -> float:
    """By how much most devices are worse than on validation data, which is not for one of them to
    answer: other things stand before all of them."""
    effects = [of.effect for of in shares if of.kind == one.kind and of.voter in reference.devices]
    if one.voter not in reference.devices or len(effects) < LEAST_DEVICES:
        return 0.0
    return max(0.0, float(np.median(effects)))


def _estimate_share(count: Any, samples: Any) -> Any:
    """The share on whose arcsine Anscombe's correction is made."""
    return (count + 0.375) / (samples + 0.75)


def _count_independent(certainty: Certainty, variance: float) -> float:
    """The number of independent samples among these, at least 1.

    The correlation of neighbours follows from how much they differ, beside the variance of the
    validation data (J. von Neumann, Ann. Math. Stat. 12, 1941, 367-395), and is known also
    where nothing moves.
    """
    if variance <= 0:
        return 1.0
    difference = float((np.diff(certainty) ** 2).mean()) / (2 * variance)
    correlation = max(0.0, 1 - difference)
    return max(1.0, len(certainty) * (1 - correlation) / (1 + correlation))
