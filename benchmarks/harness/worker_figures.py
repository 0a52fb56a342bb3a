"""What became of the samples of a site whose workers were killed and stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.harness.percentiles import compare_quantiles, summarize_ms
from benchmarks.harness.worker_site import DEADLINE_S, EDGE, LAYER_TIMEOUT_S, Phase
from ddnn.adapters.litert import LiteRtSection
from ddnn.core.section import Section
from ddnn.exits.inference import run_devices, run_exits
from ddnn.exits.manifest import judge
from ddnn.local_site.site import SiteConfig
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.topics import Kind
from ddnn.runtime.bundle import load_bundle

TRANSITION_S = 2.0  # after a signal
FAULTS = ("lost", "late", "degraded", "mislabelled")


@dataclass(frozen=True)
class Verdict:
    """The answer to one sample against the undistributed network's."""

    arrived_s: float
    by_edge: bool
    full: bool
    right: bool
    error: float  # of its probabilities


def compare_answers(
    config: SiteConfig,
    answers: Mapping[int, tuple[bytes, float]],
    edge: Section | None = None,
) -> dict[int, Verdict]:
    """Every answer against the undistributed network's on the same frames, up to the edge.

    edge: the section of the edge, by default the bundle's.
    """
    loaded = load_bundle(config.bundle, LiteRtSection)
    manifest, everyone = loaded.manifest, loaded.manifest.hierarchy.everyone
    sections = loaded.sections if edge is None else {**loaded.sections, EDGE: edge}
    images = np.load(config.frames / "images.npy", mmap_mode="r", allow_pickle=False)
    expected: dict[int, tuple[int, list[float]]] = {}
    verdicts = {}
    for sample, (payload, arrived_s) in answers.items():
        index = sample % len(images)
        if index not in expected:
            outputs = run_devices(manifest, sections, images[index])
            scores = run_exits(manifest, sections, outputs, everyone)["edge"]
            judged = judge(manifest, "edge", scores, everyone)
            expected[index] = (judged.label, judged.probabilities)
        answer = decode(Kind.ANSWER, payload)
        assert isinstance(answer, Answer)
        label, probabilities = expected[index]
        error = np.abs(np.subtract(answer.probabilities, probabilities)).max()
        verdicts[sample] = Verdict(
            arrived_s,
            answer.exit == EDGE,
            answer.quality == "full",
            answer.label == label,
            float(error),
        )
    return verdicts


@dataclass
class Samples:
    """What became of the samples of some phases.

    A fault counts as known once the last sample that waited in vain for a worker has arrived.
    """

    took_s: list[float] = field(default_factory=list)
    transition_s: list[float] = field(default_factory=list)
    before_s: list[float] = field(default_factory=list)  # of samples captured before it was known
    after_s: list[float] = field(default_factory=list)
    unknown_s: list[float] = field(default_factory=list)  # by phase: from the signal until known
    waited: int = 0
    in_flight: int = 0
    lost: int = 0
    late: int = 0
    degraded: int = 0
    mislabelled: int = 0
    error: float = 0.0

    def add(self, phase: Phase, verdicts: Mapping[int, Verdict]) -> None:
        """Count the samples of a phase that were not answered before its signal."""
        span: list[tuple[float, float]] = []  # captured, took
        for sample in range(phase.first, phase.last):
            captured_s, verdict = sample / phase.rate_hz, verdicts.get(sample)
            if captured_s < phase.signalled_s:
                if verdict is not None and verdict.arrived_s < phase.signalled_s:
                    continue
                self.in_flight += 1
            if verdict is None:
                self.lost += 1
                continue
            took_s = verdict.arrived_s - captured_s
            span.append((captured_s, took_s))
            self.late += took_s > DEADLINE_S or not verdict.by_edge
            self.degraded += not verdict.full
            if verdict.full:
                self.mislabelled += not verdict.right
                self.error = max(self.error, verdict.error)
        self.took_s += [took_s for _, took_s in span]
        if phase.condition == "free":
            return
        signalled_s = phase.signalled_s
        self.transition_s += [took for at, took in span if at < signalled_s + TRANSITION_S]
        waited = [at + took for at, took in span if took >= LAYER_TIMEOUT_S]
        self.waited += len(waited)
        # Where no sample waited, those under way are the ones that could have.
        known_s = max(waited, default=signalled_s)
        self.unknown_s.append(known_s - signalled_s)
        self.before_s += [took for at, took in span if at < known_s]
        self.after_s += [took for at, took in span if at >= known_s]


def summarize_system(
    phases: Sequence[Phase],
    verdicts: Mapping[int, Verdict],
    states: Sequence[tuple[float, OffloadState]],
) -> dict[str, Any]:
    """The figures of one system. states: of the edge, with their arrival"""
    found = {condition: Samples() for condition in ("free", "killed", "stopped")}
    for phase in phases:
        found[phase.condition].add(phase, verdicts)
    free = found["free"]
    report: dict[str, Any] = {
        name: sum(getattr(samples, name) for samples in found.values()) for name in FAULTS
    }
    report["max_probability_error"] = max(samples.error for samples in found.values())
    report["free"] = summarize_ms(free.took_s)
    for condition, samples in found.items():
        if condition == "free" or not samples.took_s:
            continue
        report[condition] = {
            **summarize_ms(samples.took_s),
            **compare_quantiles(samples.took_s, free.took_s),
            "transition": {
                **summarize_ms(samples.transition_s),
                **compare_quantiles(samples.transition_s, free.took_s),
            },
            "until_known": summarize_ms(samples.before_s),
            "once_known": summarize_ms(samples.after_s),
            "unknown_ms": [round(1e3 * s, 1) for s in samples.unknown_s],
            "in_flight": samples.in_flight,
            "waited_for_timeout": samples.waited,
        }
    free_phases = [phase for phase in phases if phase.condition == "free"]
    during_free = [
        state
        for at_s, state in states
        if any(p.first / p.rate_hz < at_s < p.last / p.rate_hz for p in free_phases)
    ]
    if during_free:
        report["gather_ms"] = round(float(np.median([s.gather_ms for s in during_free])), 3)
        report["decode_ms"] = round(float(np.median([s.combine_ms for s in during_free])), 4)
    return report
