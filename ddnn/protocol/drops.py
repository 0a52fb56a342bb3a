"""Which counts are of what was lost or refused."""

from __future__ import annotations

from collections.abc import Mapping

DROPS = frozenset(
    {
        "answer_log_failed",
        "answers_given_up",
        "answers_invalid",
        "answers_refused",
        "bundles_failed",
        "commands_forged",
        "commands_replayed",
        "commands_unsigned",
        "contradictions",
        "events_refused",
        "evicted",
        "expired",
        "features_late",
        "features_refused",
        "frames_refused",
        "frames_skipped",
        "given_up",
        "malformed",
        "over_budget",
        "pictures_dropped",
        "pieces_failed",
        "plans_refused",
        "publish_refused",
        "queue_full",
        "results_refused",
        "samples_refused",
        "scores_late",
        "scores_refused",
        "section_failed",
        "subscribe_refused",
        "tasks_refused",
        "tasks_skipped",
        "thresholds_refused",
        "too_large",
        "unanswered",
        "verdict_late",
        "verdict_refused",
        "workers_faulty",
        "wrong_bundle",
        "wrong_plan",
    }
)
"""Counts of what was lost or refused; every other count is of ordinary business."""


def drops(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name in DROPS and count}
