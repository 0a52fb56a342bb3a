"""Answers such as a site of six cameras gives, drawn from a random generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ddnn.protocol.messages import Answer, ExitName

DEVICES = [f"cam{number + 1}" for number in range(6)]
CLASSES = 3
BUNDLE = "benchmrk"


def draw_answers(
    random: np.random.Generator,
    sites: list[str],
    count: int,
    until_s: float,
    rate_hz: float,
    bundle: str = BUNDLE,
) -> Iterator[tuple[str, Answer]]:
    """Yield (site, answer) `count` times in order of time, up to `until_s`; the sites in turn, each
    at `rate_hz`."""
    rounds = -(-count // len(sites))
    newest = int(until_s * rate_hz)
    for number in range(count):
        site = sites[number % len(sites)]
        sample = newest - rounds + 1 + number // len(sites)
        yield site, _draw_answer(random, sample, sample / rate_hz, bundle)


def _draw_answer(
    random: np.random.Generator, sample: int, captured_at_s: float, bundle: str
) -> Answer:
    a, b, c, d = random.uniform(size=4).tolist()
    label = int(a * CLASSES)
    exit_: ExitName = (
        "local" if b < 0.6 else "edge" if b < 0.85 else "cloud" if b < 0.98 else "device"
    )
    members = DEVICES if exit_ != "device" else DEVICES[:1]
    sure = 0.5 + c / 2
    rest = (1 - sure) / (CLASSES - 1)
    probabilities = [sure if index == label else rest for index in range(CLASSES)]
    latency_s = {"local": 0.004, "edge": 0.01, "cloud": 0.02, "device": 0.9}[exit_] * (1 + c)
    deep = {"local": 1, "edge": 2, "cloud": 3, "device": 0}[exit_]
    exits: tuple[ExitName, ...] = ("local", "edge", "cloud")
    return Answer(
        sample=sample,
        node="edge" if exit_ != "device" else "cam1",
        exit=exit_,
        label=label,
        probabilities=probabilities,
        eta=1 - c,
        members=list(members),
        missing=DEVICES[len(members) :],
        quality="full" if exit_ != "device" else "degraded",
        expected_accuracy=0.95,
        bundle=bundle,
        captured_at_s=captured_at_s,
        answered_at_s=captured_at_s + latency_s,
        latency_s=latency_s,
        truth=label if d < 0.9 else (label + 1) % CLASSES,
        payload_bytes=12 * len(members),
        wire_bytes=70 * len(members),
        votes=dict.fromkeys(members, (label, sure)),
        exit_trace=[(name, label, 1 - c) for name in exits[:deep]],
    )
