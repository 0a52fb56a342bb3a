"""The manifest of a bundle: everything but the sections; and the decision of an exit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.files import BundleFile
from ddnn.core.preprocessing import Preprocessing
from ddnn.errors import ConfigError
from ddnn.exits.aggregate import aggregate
from ddnn.exits.drift import Reference
from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.hierarchy import EXITS, Exit, Hierarchy
from ddnn.exits.scores import ScoreFormat
from ddnn.protocol.messages import Shortfall

FORMAT = 1
SPARSITY = "sparsity "  # prefix of keys in `training`: + layer -> share of its weights that are 0


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The affine map that CC needs at an exit: n |C| concatenated scores -> |C| (notes A2)."""

    weights: list[list[float]]  # [n * classes, classes]
    bias: list[float]  # [classes]


class SweepRow(msgspec.Struct, frozen=True, array_like=True):
    """The results of a set of thresholds on the validation data."""

    thresholds: dict[str, float]
    accuracy: float
    exit_share: dict[str, float]
    bytes_per_sample_per_device: float


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle's manifest. Section names are node ids: cam1 …, edge …, cloud."""

    format: Literal[1]
    name: str
    data: str  # the data set it was trained on, as given to `ddnn train --data`, without its path
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    hierarchy: Hierarchy
    score_format: ScoreFormat
    thresholds: dict[str, float]  # by exit; the deepest has none
    device_features: tuple[int, ...]  # shape of one device's binary features
    edge_features: tuple[int, ...]  # of one edge's; empty without an edge section
    sections: dict[str, BundleFile]
    golden: BundleFile
    sources: dict[str, BundleFile] = {}  # by edge: the Keras model, whose layers can be cut out
    heads: dict[str, Head] = {}  # by exit, where the exit scheme is CC
    accuracy: dict[str, dict[str, float]] = {}  # member mask -> exit or "overall" -> accuracy
    device_accuracy: dict[str, float] = {}  # each device answering alone
    sweep: tuple[SweepRow, ...] = ()
    recall: dict[str, float] = {}  # by class: the share of its validation samples that is found
    majority: float | None = None  # accuracy of naming always the most frequent validation class
    behaviour: Reference | None = None  # on validation data, by which drift is found
    preprocessing: Preprocessing = Preprocessing()  # of pictures, by training and every source
    cameras: dict[str, str] = {}  # folder by device, where it was trained on folders of images
    jpeg_bytes: float | None = None  # one image at quality 90, mean of the validation data
    training: dict[str, str | float | int] = {}

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ConfigError(f"a bundle needs at least two classes, got {self.classes}")
        for tier in self.hierarchy.exits[:-1]:
            if not 0 <= self.thresholds.get(tier, -1.0) <= 1.000001:
                raise ConfigError(f"bundle {self.name}: no threshold in [0, 1] for exit {tier}")
        self._check_heads()
        self._check_behaviour()

    def _check_heads(self) -> None:
        """Raise ConfigError unless CC has at each exit the map that it needs, and others none."""
        hierarchy, classes = self.hierarchy, len(self.classes)
        parts = {"local": len(hierarchy.devices), "edge": len(hierarchy.edges)}
        needed = [
            tier
            for tier in hierarchy.exits
            if hierarchy.exit_scheme == "CC" and tier in parts and parts[tier] > 1
        ]
        missing = [tier for tier in needed if tier not in self.heads]
        if missing:
            raise ConfigError(
                f"bundle {self.name}: CC concatenates the scores at exit {missing[0]}, and the "
                "bundle has no head that maps them to classes; export it again"
            )
        for tier, head in self.heads.items():
            rows = parts.get(tier, 1) * classes if hierarchy.exit_scheme == "CC" else classes
            values = [*head.bias, *(value for row in head.weights for value in row)]
            fits = (
                tier in hierarchy.exits
                and len(head.weights) == rows
                and all(len(row) == classes for row in head.weights)
                and len(head.bias) == classes
                and all(math.isfinite(value) for value in values)
            )
            if not fits:
                raise ConfigError(
                    f"bundle {self.name}: the head of exit {tier} must be {rows} x {classes} "
                    f"finite weights and {classes} biases of one of its exits; export it again"
                )

    def _check_behaviour(self) -> None:
        """Raise ConfigError unless the behaviour is of this hierarchy's devices and classes."""
        behaviour = self.behaviour
        if behaviour is None:
            return
        voters = (behaviour.answers, *behaviour.devices.values())
        is_known = set(behaviour.devices) in (set(), set(self.hierarchy.devices))
        if not is_known or any(len(by_class) != len(self.classes) for by_class in voters):
            raise ConfigError(
                f"bundle {self.name}: its behaviour on validation data is of other devices or "
                f"classes than {', '.join(self.hierarchy.devices)} and {', '.join(self.classes)}; "
                "export it again"
            )

    @property
    def near_chance(self) -> bool:
        """Whether the validation accuracy, with all members, may be that of the majority class."""
        accuracy = self.find_expected_accuracy(self.hierarchy.everyone, "overall")
        samples = self.training.get("validation_samples")
        if accuracy is None or self.majority is None or samples is None:
            return False
        return is_near_chance(accuracy, self.majority, int(samples))

    @property
    def raw_bytes(self) -> int:
        """The bytes of one uncompressed image."""
        return int(np.prod(self.image_shape))

    def with_thresholds(self, thresholds: Mapping[str, float]) -> Manifest:
        """The manifest with other thresholds; an exit that is not named keeps the bundle's own.

        The "overall" accuracies were measured with the bundle's own thresholds. For others the
        sweep holds them, with all members present; the rest is removed.

        ConfigError where there is no such exit, or a threshold is not in [0, 1].
        """
        for tier, threshold in thresholds.items():
            if tier not in self.thresholds or not 0 <= threshold <= 1:
                expected = ", ".join(self.thresholds) or "no exit"
                raise ConfigError(
                    f"threshold {threshold} for exit {tier!r}: expected 0 to 1 for {expected}"
                )
        in_use = {**self.thresholds, **thresholds}
        if in_use == self.thresholds:
            return self
        accuracy = {
            mask: {tier: value for tier, value in row.items() if tier != "overall"}
            for mask, row in self.accuracy.items()
        }
        swept = find_swept_accuracy(self.sweep, in_use)
        if swept is not None:
            accuracy.setdefault(str(self.hierarchy.everyone), {})["overall"] = swept
        return msgspec.structs.replace(self, thresholds=in_use, accuracy=accuracy)

    def find_expected_accuracy(self, mask: int, key: str) -> float | None:
        """The measured accuracy with exactly the members of `mask`; key: an exit or overall."""
        return self.accuracy.get(str(mask), {}).get(key)


def is_near_chance(accuracy: float, majority: float, samples: int) -> bool:
    """Whether naming the most frequent class reaches the accuracy with a probability of 5 %.

    By the normal approximation of the binomial distribution.
    """
    return accuracy <= majority + 1.645 * math.sqrt(majority * (1 - majority) / samples)


def find_swept_accuracy(sweep: Sequence[SweepRow], thresholds: Mapping[str, float]) -> float | None:
    """Find the accuracy of exactly these thresholds in the sweep, with all members present."""
    for row in sweep:
        if all(abs(row.thresholds.get(tier, -1) - t) < 1e-9 for tier, t in thresholds.items()):
            return row.accuracy
    return None


class Judgement(msgspec.Struct, frozen=True):
    """The decision of an exit on a sample."""

    exit: Exit
    label: int
    probabilities: list[float]
    eta: float
    sure: bool
    mask: int  # the devices that contributed
    shortfall: Shortfall | None = None  # what its scores lack besides


def is_sure(exits: Sequence[str], thresholds: Mapping[str, float], tier: str, eta: float) -> bool:
    """The exit rule eta < T (strict; notes A5); the deepest of `exits` always answers."""
    return tier in exits[-1:] or eta < thresholds.get(tier, 0.0)


def judge(
    manifest: Manifest,
    tier: Exit,
    scores: NDArray[np.float32],
    mask: int,
    shortfall: Shortfall | None = None,
) -> Judgement:
    """Decide on an exit's scores [classes]: softmax, normalized entropy, and the exit rule."""
    probabilities = softmax(scores)
    eta = float(normalized_entropy(probabilities))
    sure = is_sure(manifest.hierarchy.exits, manifest.thresholds, tier, eta)
    return Judgement(
        tier, int(np.argmax(scores)), [float(p) for p in probabilities], eta, sure, mask, shortfall
    )


def aggregate_scores(
    manifest: Manifest, tier: Exit, parts: Sequence[NDArray[np.float32] | None]
) -> NDArray[np.float32]:
    """Aggregate class-score vectors [classes], one per node of the tier (None = absent)."""
    fused = aggregate(parts, manifest.hierarchy.exit_scheme, (len(manifest.classes),))
    head = manifest.heads.get(tier)
    if head is None:
        return fused
    weights = np.asarray(head.weights, np.float32)
    result: NDArray[np.float32] = fused @ weights + np.asarray(head.bias, np.float32)
    return result


def fuse_features(
    manifest: Manifest, parts: Sequence[NDArray[Any] | None], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Fuse features of `shape` (None = absent) to the input of an edge's or the cloud's section."""
    return aggregate(parts, manifest.hierarchy.fusion_scheme, shape)


def list_cloud_parts(manifest: Manifest) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """List the nodes whose features the cloud's section fuses, and the shape of each."""
    hierarchy = manifest.hierarchy
    if hierarchy.edge_section:
        return tuple(group.id for group in hierarchy.edges), manifest.edge_features
    return hierarchy.devices, manifest.device_features


def find_depth(tier: Exit) -> int:
    """The number of an exit: 0 for a device that answers alone … 3 for the cloud."""
    return EXITS.index(tier)
