"""Measures a trained hierarchy: accuracies of exits and of subsets of members, threshold sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.bits import packed_bytes
from ddnn.core.section import Section
from ddnn.errors import ConfigError
from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.hierarchy import Exit, Hierarchy
from ddnn.exits.inference import DeviceOutput, run_devices, run_exits
from ddnn.exits.manifest import Manifest, SweepRow, aggregate_scores
from ddnn.exits.scores import SCORE_TYPES, ScoreFormat

Scores = NDArray[np.float32]
Labels = NDArray[np.int32]
ALL_SUBSETS_UP_TO = 8  # devices; with more, only the subsets without one member are measured
SUBSET_SAMPLES = 400  # measured with members missing; of more samples every n-th is taken
GRID = {"local": np.linspace(0, 1, 51), "edge": np.linspace(0, 1, 21)}


class Measurement(msgspec.Struct, frozen=True):
    """Class scores of samples: per device [samples, devices, classes], per member mask and exit
    [samples, classes].

    subset: the samples measured with members missing, where these are not all
    """

    labels: Labels
    devices: Scores
    exits: dict[int, dict[Exit, Scores]]
    subset: NDArray[np.intp] | None = None

    def list_rows(self, mask: int) -> NDArray[np.intp]:
        """The samples that were measured with the members of a mask."""
        if self.subset is None or mask == max(self.exits):
            return np.arange(len(self.labels))
        return self.subset


def list_member_masks(devices: int) -> list[int]:
    """List the member masks to measure: all subsets but the empty one, the full one first."""
    if devices <= ALL_SUBSETS_UP_TO:
        masks = range((1 << devices) - 1, 0, -1)
        return sorted(masks, key=lambda mask: -mask.bit_count())
    everyone = (1 << devices) - 1
    single = [everyone & ~(1 << i) for i in range(devices)]
    return [everyone, *single]


def measure_scores(
    manifest: Manifest,
    sections: Mapping[str, Section],
    images: NDArray[np.uint8],
    labels: Labels,
    masks: Iterable[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
    subset_samples: int | None = None,
) -> Measurement:
    """Run every sample through every section, for every mask. images: uint8 [n, devices, h, w, 3].

    The device scores are those before encoding; exits use them as decoded.

    subset_samples: how many samples are run with members missing; None: all
    """
    masks = list(masks)
    count, everyone = len(labels), max(masks)
    subset = np.arange(count)
    if subset_samples is not None and subset_samples < count:
        subset = np.linspace(0, count, subset_samples, endpoint=False).astype(np.intp)
    place = {int(row): number for number, row in enumerate(subset)}
    classes = len(manifest.classes)
    hierarchy = manifest.hierarchy
    raw = msgspec.structs.replace(manifest, score_format=ScoreFormat())
    devices = np.zeros((len(labels), len(hierarchy.devices), classes), np.float32)
    exits: dict[int, dict[Exit, Scores]] = {
        mask: {
            tier: np.zeros((count if mask == everyone else len(subset), classes), np.float32)
            for tier in hierarchy.exits
        }
        for mask in masks
    }
    for n in range(count):
        outputs = run_devices(raw, sections, images[n])
        if hierarchy.device_section:
            devices[n] = [output.scores for output in outputs]
        received = [decode_output(manifest.score_format, output) for output in outputs]
        for mask in masks if n in place else [everyone]:
            at = n if mask == everyone else place[n]
            for tier, scores in run_exits(manifest, sections, received, mask).items():
                exits[mask][tier][at] = scores
        progress(n + 1, count)
    return Measurement(labels, devices, exits, subset if len(subset) < count else None)


def pool_measurements(parts: Sequence[Measurement]) -> Measurement:
    """Combine the measurements of several folds, each on samples that its network has not seen.

    Of several, each must have run all its samples with members missing.
    """
    if len(parts) == 1:
        return parts[0]
    masks = parts[0].exits.keys()
    tiers = next(iter(parts[0].exits.values())).keys()
    return Measurement(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.devices for part in parts]),
        {
            mask: {
                tier: np.concatenate([part.exits[mask][tier] for part in parts]) for tier in tiers
            }
            for mask in masks
        },
    )


def decode_output(score_format: ScoreFormat, output: DeviceOutput) -> DeviceOutput:
    """The output with scores as a receiver decodes them."""
    if output.scores is None:
        return output
    return DeviceOutput(score_format.decode(score_format.encode(output.scores)), output.features)


def encode_with_format(
    manifest: Manifest, measured: Measurement, score_format: ScoreFormat
) -> Measurement:
    """The same measurement with device scores travelling as `score_format`."""
    if not manifest.hierarchy.local_exit:
        return measured
    received = score_format.decode(score_format.encode(measured.devices))
    exits: dict[int, dict[Exit, Scores]] = {}
    for mask, old in measured.exits.items():
        local = np.stack(
            [
                aggregate_scores(
                    manifest, "local", [v if mask >> i & 1 else None for i, v in enumerate(s)]
                )
                for s in received[measured.list_rows(mask)]
            ]
        )
        exits[mask] = {**old, "local": local}
    return msgspec.structs.replace(measured, exits=exits)


def list_score_formats(devices: Scores) -> list[ScoreFormat]:
    """List the formats to choose from, cheapest first.

    The uint8 grid spans the measured scores except the most extreme 0.1 %.
    """
    low, high = (float(q) for q in np.quantile(devices, [0.0005, 0.9995]))
    grid = ScoreFormat("uint8", low, max(high, low + 1e-3))
    formats = {"uint8": grid, "float16": ScoreFormat("float16"), "float32": ScoreFormat()}
    return [formats[name] for name in reversed(SCORE_TYPES)]


def compute_accuracy(scores: Scores, labels: Labels) -> float:
    """The share of samples whose greatest score is that of the label; 0 without samples."""
    return float(np.mean(scores.argmax(-1) == labels)) if len(labels) else 0.0


def compute_recalls(answers: Labels, labels: Labels, classes: Sequence[str]) -> dict[str, float]:
    """By class that has samples: the share of its samples that are answered with it."""
    return {
        name: float(np.mean(answers[labels == number] == number))
        for number, name in enumerate(classes)
        if (labels == number).any()
    }


def compute_majority(labels: Labels) -> float:
    """The accuracy of naming always the most frequent class; 0 without samples."""
    return float(np.bincount(labels).max() / len(labels)) if len(labels) else 0.0


def apply_exits(
    hierarchy: Hierarchy, exits: Mapping[Exit, Scores], thresholds: Mapping[str, float]
) -> tuple[NDArray[np.int32], Labels]:
    """Find the exit that answers each sample (index into hierarchy.exits), and its label."""
    tiers = hierarchy.exits
    count = len(exits[tiers[-1]])
    chosen = np.full(count, len(tiers) - 1, np.int32)
    answers = exits[tiers[-1]].argmax(-1).astype(np.int32)
    for index in reversed(range(len(tiers) - 1)):
        scores = exits[tiers[index]]
        sure = normalized_entropy(softmax(scores)) < thresholds[tiers[index]]
        chosen[sure] = index
        answers[sure] = scores.argmax(-1)[sure]
    return chosen, answers


def sweep_thresholds(
    manifest: Manifest, exits: Mapping[Exit, Scores], labels: Labels, score_format: ScoreFormat
) -> list[SweepRow]:
    """Measure accuracy, exit shares and bytes for a grid of thresholds, all members present."""
    hierarchy = manifest.hierarchy
    tiers = hierarchy.exits
    rows = []
    for values in product(*(GRID[tier] for tier in tiers[:-1])):
        thresholds = {str(tier): float(t) for tier, t in zip(tiers, values, strict=False)}
        chosen, answers = apply_exits(hierarchy, exits, thresholds)
        share = {str(tier): float(np.mean(chosen == i)) for i, tier in enumerate(tiers)}
        cost = compute_bytes_per_device(manifest, score_format, share.get("local", 0.0))
        rows.append(SweepRow(thresholds, float(np.mean(answers == labels)), share, cost))
    return rows


def compute_bytes_per_device(
    manifest: Manifest, score_format: ScoreFormat, local_share: float
) -> float:
    """c of the paper (notes A6) with scores in `score_format`; the raw image without local exit."""
    if not manifest.hierarchy.device_section:
        return float(manifest.raw_bytes)
    features = packed_bytes(int(np.prod(manifest.device_features)))
    scores = len(manifest.classes) * score_format.bytes_per_score
    return scores + (1 - local_share) * features


def compute_uplink_bytes(manifest: Manifest) -> float:
    """Bytes that the edges' sections send to the cloud for a sample that goes there, per device."""
    hierarchy = manifest.hierarchy
    if not hierarchy.edge_section:
        return 0.0
    features = packed_bytes(int(np.prod(manifest.edge_features)))
    return features * len(hierarchy.edges) / len(hierarchy.devices)


def compute_total_bytes(manifest: Manifest, row: SweepRow) -> float:
    """Bytes per sample and device of all hops: those of the paper, and a device's part of what the
    edges send to the cloud."""
    uplink = compute_uplink_bytes(manifest) * row.exit_share.get("cloud", 0.0)
    return row.bytes_per_sample_per_device + uplink


Cost = Callable[[SweepRow], float]


def check_margin(margin: float) -> None:
    """ConfigError for what is no loss of accuracy."""
    if not 0 <= margin <= 1:
        raise ConfigError(f"margin {margin}: expected a loss of accuracy from 0 to 1")


def choose_row(rows: Sequence[SweepRow], cost: Cost, margin: float) -> SweepRow:
    """The row with the least cost whose accuracy is within `margin` of the most accurate row's.

    Of rows with equal cost it is the most accurate one. Raises ConfigError for a margin that is
    none.
    """
    check_margin(margin)
    best = max(row.accuracy for row in rows)
    within = [row for row in rows if row.accuracy >= best - margin - 1e-9]
    return min(within, key=lambda row: (round(cost(row), 6), -row.accuracy))


def find_front(rows: Sequence[SweepRow], cost: Cost) -> list[SweepRow]:
    """The rows that no other one surpasses in accuracy at the same or a lower cost, cheapest
    first."""
    front: list[SweepRow] = []
    for row in sorted(rows, key=lambda row: (round(cost(row), 6), -row.accuracy)):
        if not front or row.accuracy > front[-1].accuracy:
            front.append(row)
    return front


def choose_format(
    manifest: Manifest, measured: Measurement, margin: float
) -> tuple[ScoreFormat, list[SweepRow], SweepRow]:
    """Choose the cheapest format within the margin; return it, its sweep and row (notes A9)."""
    everyone = manifest.hierarchy.everyone

    def cost(row: SweepRow) -> float:
        return compute_total_bytes(manifest, row)

    options = []
    for score_format in list_score_formats(measured.devices):
        received = encode_with_format(
            manifest,
            Measurement(measured.labels, measured.devices, {everyone: measured.exits[everyone]}),
            score_format,
        )
        rows = sweep_thresholds(manifest, received.exits[everyone], measured.labels, score_format)
        options.append((score_format, rows, choose_row(rows, cost, margin)))
    best = max(row.accuracy for _, rows, _ in options for row in rows)
    within = [option for option in options if option[2].accuracy >= best - margin - 1e-9]
    return min(within or options, key=lambda option: cost(option[2]))


def make_accuracy_table(
    hierarchy: Hierarchy, measured: Measurement, thresholds: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """By member mask: each exit's accuracy on all samples, and "overall" with the exit rule."""
    table: dict[str, dict[str, float]] = {}
    for mask, exits in measured.exits.items():
        _, answers = apply_exits(hierarchy, exits, thresholds)
        labels = measured.labels[measured.list_rows(mask)]
        row = {str(tier): compute_accuracy(scores, labels) for tier, scores in exits.items()}
        table[str(mask)] = {**row, "overall": float(np.mean(answers == labels))}
    return table


def list_inversions(
    hierarchy: Hierarchy, exits: Mapping[Exit, Scores], labels: Labels
) -> list[tuple[Exit, Exit, float]]:
    """The pairs of neighbouring exits of which the deeper one is not more accurate: the shallow
    one, the deep one, and by how much it is less accurate."""
    accuracy = {tier: compute_accuracy(exits[tier], labels) for tier in hierarchy.exits}
    return [
        (shallow, deep, accuracy[shallow] - accuracy[deep])
        for shallow, deep in zip(hierarchy.exits, hierarchy.exits[1:], strict=False)
        if accuracy[deep] <= accuracy[shallow]
    ]


def compute_missing_accuracy(
    hierarchy: Hierarchy, table: Mapping[str, Mapping[str, float]], missing: int
) -> float | None:
    """Mean overall accuracy over all subsets with exactly `missing` members away."""
    members = len(hierarchy.devices)
    rows = [
        row["overall"] for mask, row in table.items() if members - int(mask).bit_count() == missing
    ]
    return float(np.mean(rows)) if rows else None
