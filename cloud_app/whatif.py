"""Estimates what other thresholds would have done with recorded samples. Pure functions.

The exit rule is DDNN's (Teerapittayanon et al., ICDCS 2017, Sec. III-D), see
ddnn.exits.manifest.is_sure: the first exit, from shallow to deep, with eta < T answers; the
deepest always does. A recorded sample holds eta and label of each exit that evaluated it. Where
none of these is sure under the other thresholds, a deeper exit would have answered that never saw
the sample (or answered too late): its answer is unknown. Such samples form the share UNKNOWN; no
answer is guessed for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from cloud_app.store import Replay
from ddnn.exits.audit import compare_audited
from ddnn.exits.intervals import compute_wilson_interval
from ddnn.exits.manifest import SweepRow, is_sure

UNKNOWN = "unknown"
ALONE = "device"  # a device answered from its own exit, whatever the thresholds of the edge


class WhatIf(msgspec.Struct, frozen=True):
    """Recorded samples answered again. `bytes` are per sample and device.

    Shares are of all `samples`. `accuracy` is over the `known` ones, which have an answer and a
    truth; None where there are none.
    """

    samples: int
    exit_share: dict[str, float]
    known: int
    accuracy: float | None
    interval: tuple[float, float] | None  # 95 %
    bytes: float | None


def replay_exits(
    exits: Sequence[str], thresholds: Mapping[str, float], replay: Replay
) -> tuple[str, int] | None:
    """Find the exit and the label that answer under `thresholds`; None: the answer is unknown."""
    if replay.exit == ALONE:
        return replay.exit, replay.label
    for tier, label, eta in replay.exit_trace:
        if is_sure(exits, thresholds, tier, eta):
            return tier, label
    return None


def evaluate_thresholds(
    exits: Sequence[str],
    sweep: Sequence[SweepRow],
    thresholds: Mapping[str, float],
    replays: Sequence[Replay],
) -> WhatIf:
    """Answer `replays`, samples of the bundle with `exits`, again under `thresholds`."""
    shares: Counter[str] = Counter()
    known = correct = 0
    for replay in replays:
        answer = replay_exits(exits, thresholds, replay)
        shares[answer[0] if answer else UNKNOWN] += 1
        if answer is not None and replay.truth is not None and replay.truth >= 0:
            known += 1
            correct += answer[1] == replay.truth
    samples = len(replays)
    exit_share = {
        tier: shares[tier] / samples
        for tier in (ALONE, *exits, UNKNOWN)
        if samples and (tier in exits or tier == UNKNOWN or shares[tier])
    }
    return WhatIf(
        samples=samples,
        exit_share=exit_share,
        known=known,
        accuracy=correct / known if known else None,
        interval=compute_wilson_interval(correct, known) if known else None,
        bytes=_interpolate_bytes(sweep, exit_share),
    )


class Audit(msgspec.Struct, frozen=True):
    """Of recorded samples that the local exit was sure of and that went up all the same: how many
    there are, and how many of them the deeper exit answered alike."""

    share: float  # of such samples that go up; 0: none
    audited: int
    agreed: int
    interval: tuple[float, float] | None  # of the agreement, 95 %; None without samples


def audit_exits(
    exits: Sequence[str], thresholds: Mapping[str, float], share: float, replays: Sequence[Replay]
) -> Audit:
    """Compare the local exit with deeper ones on the samples that are audited with this share."""
    found = [
        compare_audited(exits, thresholds, share, replay.sample, replay.exit_trace)
        for replay in replays
        if replay.exit != ALONE
    ]
    audited, agreed = sum(one is not None for one in found), sum(one is True for one in found)
    return Audit(
        share, audited, agreed, compute_wilson_interval(agreed, audited) if audited else None
    )


def _interpolate_bytes(sweep: Sequence[SweepRow], exit_share: Mapping[str, float]) -> float | None:
    """Bytes per sample and device, interpolated between the rows of the sweep.

    They depend only on the share of samples that send no features, and linearly; this share is
    known even where the answer of a deeper exit is not.
    """
    if not sweep or not exit_share:
        return None
    rows = sorted((r.exit_share.get("local", 0.0), r.bytes_per_sample_per_device) for r in sweep)
    shares, sizes = zip(*rows, strict=True)
    no_features = exit_share.get("local", 0.0) + exit_share.get(ALONE, 0.0)
    return float(np.interp(no_features, shares, sizes))


def find_nearest_row(sweep: Sequence[SweepRow], thresholds: Mapping[str, float]) -> SweepRow | None:
    """The row of the sweep whose thresholds are nearest (least squares); None: no sweep."""

    def distance(row: SweepRow) -> float:
        return sum((row.thresholds.get(tier, 0.0) - t) ** 2 for tier, t in thresholds.items())

    return min(sweep, key=distance, default=None)
