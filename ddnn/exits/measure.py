"""What a trained hierarchy is worth: exit accuracies, threshold sweep, every subset of members."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.bits import packed_bytes
from ddnn.core.section import Section
from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.hierarchy import Exit, Hierarchy
from ddnn.exits.inference import DeviceOutput, run_devices, run_exits
from ddnn.exits.manifest import Manifest, SweepRow, exit_scores
from ddnn.exits.scores import SCORE_TYPES, ScoreFormat

Scores = NDArray[np.float32]
Labels = NDArray[np.int32]
ALL_SUBSETS_UP_TO = 8  # devices; beyond, subsets of few missing members only
GRID = {"local": np.linspace(0, 1, 51), "edge": np.linspace(0, 1, 11)}


class Measured(msgspec.Struct, frozen=True):
    """Class scores of samples: per device [samples, devices, classes], per member mask and exit
    [samples, classes]."""

    labels: Labels
    devices: Scores
    exits: dict[int, dict[Exit, Scores]]


def member_masks(devices: int) -> list[int]:
    """The member masks that are measured: all subsets but the empty one, the full one first."""
    if devices <= ALL_SUBSETS_UP_TO:
        masks = range((1 << devices) - 1, 0, -1)
        return sorted(masks, key=lambda mask: -mask.bit_count())
    everyone = (1 << devices) - 1
    single = [everyone & ~(1 << i) for i in range(devices)]
    return [everyone, *single]


def measure(
    manifest: Manifest,
    sections: Mapping[str, Section],
    images: NDArray[np.uint8],
    labels: Labels,
    masks: Iterable[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Run every sample through every section, for every mask. images: uint8 [n, devices, h, w, 3].

    The device scores are those before encoding; exits use them as decoded.
    """
    masks = list(masks)
    classes = len(manifest.classes)
    hierarchy = manifest.hierarchy
    raw = msgspec.structs.replace(manifest, score_format=ScoreFormat())
    devices = np.zeros((len(labels), len(hierarchy.devices), classes), np.float32)
    exits: dict[int, dict[Exit, Scores]] = {
        mask: {tier: np.zeros((len(labels), classes), np.float32) for tier in hierarchy.exits}
        for mask in masks
    }
    for n in range(len(labels)):
        outputs = run_devices(raw, sections, images[n])
        if hierarchy.device_section:
            devices[n] = [output.scores for output in outputs]
        received = [decode_output(manifest.score_format, output) for output in outputs]
        for mask in masks:
            for tier, scores in run_exits(manifest, sections, received, mask).items():
                exits[mask][tier][n] = scores
        progress(n + 1, len(labels))
    return Measured(labels, devices, exits)


def pool(parts: Sequence[Measured]) -> Measured:
    """Measurements of several folds as one: each sample by a network that has not seen it."""
    masks = parts[0].exits.keys()
    tiers = next(iter(parts[0].exits.values())).keys()
    return Measured(
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


def with_format(manifest: Manifest, measured: Measured, score_format: ScoreFormat) -> Measured:
    """The same measurement with device scores travelling as `score_format`."""
    if not manifest.hierarchy.local_exit:
        return measured
    received = score_format.decode(score_format.encode(measured.devices))
    exits: dict[int, dict[Exit, Scores]] = {}
    for mask, old in measured.exits.items():
        local = np.stack(
            [
                exit_scores(
                    manifest, "local", [v if mask >> i & 1 else None for i, v in enumerate(s)]
                )
                for s in received
            ]
        )
        exits[mask] = {**old, "local": local}
    return Measured(measured.labels, measured.devices, exits)


def score_formats(devices: Scores) -> list[ScoreFormat]:
    """The candidates, cheapest first; the uint8 grid spans the scores seen, less rare extremes."""
    low, high = (float(q) for q in np.quantile(devices, [0.0005, 0.9995]))
    grid = ScoreFormat("uint8", low, max(high, low + 1e-3))
    formats = {"uint8": grid, "float16": ScoreFormat("float16"), "float32": ScoreFormat()}
    return [formats[name] for name in reversed(SCORE_TYPES)]


def accuracy(scores: Scores, labels: Labels) -> float:
    return float(np.mean(scores.argmax(-1) == labels)) if len(labels) else 0.0


def apply_exits(
    hierarchy: Hierarchy, exits: Mapping[Exit, Scores], thresholds: Mapping[str, float]
) -> tuple[NDArray[np.int32], Labels]:
    """Which exit answers each sample (index into hierarchy.exits), and the label it answers."""
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


def sweep(
    manifest: Manifest, exits: Mapping[Exit, Scores], labels: Labels, score_format: ScoreFormat
) -> list[SweepRow]:
    """Accuracy, exit shares and bytes for a grid of thresholds, all members present."""
    hierarchy = manifest.hierarchy
    tiers = hierarchy.exits
    rows = []
    for values in product(*(GRID[tier] for tier in tiers[:-1])):
        thresholds = {str(tier): float(t) for tier, t in zip(tiers, values, strict=False)}
        chosen, answers = apply_exits(hierarchy, exits, thresholds)
        share = {str(tier): float(np.mean(chosen == i)) for i, tier in enumerate(tiers)}
        cost = bytes_per_device(manifest, score_format, share.get("local", 0.0))
        rows.append(SweepRow(thresholds, float(np.mean(answers == labels)), share, cost))
    return rows


def bytes_per_device(manifest: Manifest, score_format: ScoreFormat, local_share: float) -> float:
    """c of the paper (notes A6) with scores in `score_format`; the raw image without local exit."""
    if not manifest.hierarchy.device_section:
        return float(manifest.raw_bytes)
    features = packed_bytes(int(np.prod(manifest.device_features)))
    scores = len(manifest.classes) * score_format.bytes_per_score
    return scores + (1 - local_share) * features


def choose(rows: Sequence[SweepRow], deepest_accuracy: float, margin: float) -> SweepRow:
    """The fewest mean bytes whose accuracy is within `margin` of the deepest exit; then the most
    accurate of them. Where no row is within it: the most accurate row."""
    within = [row for row in rows if row.accuracy >= deepest_accuracy - margin - 1e-9]
    if not within:
        return max(rows, key=lambda row: (row.accuracy, -row.bytes_per_sample_per_device))
    return min(within, key=lambda row: (round(row.bytes_per_sample_per_device, 6), -row.accuracy))


def choose_format(
    manifest: Manifest, measured: Measured, margin: float
) -> tuple[ScoreFormat, list[SweepRow], SweepRow]:
    """The cheapest way to send scores, with its sweep and thresholds (notes A9; issue of bytes)."""
    everyone = manifest.hierarchy.everyone
    deepest = accuracy(measured.exits[everyone]["cloud"], measured.labels)
    options = []
    for score_format in score_formats(measured.devices):
        received = with_format(
            manifest,
            Measured(measured.labels, measured.devices, {everyone: measured.exits[everyone]}),
            score_format,
        )
        rows = sweep(manifest, received.exits[everyone], measured.labels, score_format)
        options.append((score_format, rows, choose(rows, deepest, margin)))
    within = [option for option in options if option[2].accuracy >= deepest - margin - 1e-9]
    return min(within or options, key=lambda option: option[2].bytes_per_sample_per_device)


def accuracy_table(
    hierarchy: Hierarchy, measured: Measured, thresholds: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Per member mask: the accuracy of every exit forced, and "overall" with the exit rule."""
    table: dict[str, dict[str, float]] = {}
    for mask, exits in measured.exits.items():
        _, answers = apply_exits(hierarchy, exits, thresholds)
        row = {str(tier): accuracy(scores, measured.labels) for tier, scores in exits.items()}
        table[str(mask)] = {**row, "overall": float(np.mean(answers == measured.labels))}
    return table


def missing_accuracy(
    hierarchy: Hierarchy, table: Mapping[str, Mapping[str, float]], missing: int
) -> float | None:
    """Mean overall accuracy over all subsets with exactly `missing` members away."""
    members = len(hierarchy.devices)
    rows = [
        row["overall"] for mask, row in table.items() if members - int(mask).bit_count() == missing
    ]
    return float(np.mean(rows)) if rows else None
