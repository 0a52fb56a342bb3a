"""Random faults of a site's nodes: who, when and for how long, by a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

DOWN_S = (0.3, 6.0)
STOP_SHARE = 0.2  # of faults that stop instead of kill
CROWDS = ((1, 0.55), (2, 0.25), (3, 0.12))  # nodes at once, share; the rest: all devices, or all
EPOCHS = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """Nodes that are killed or stopped at once, `after_s` after the fault before."""

    after_s: float
    kills: tuple[tuple[str, float], ...]  # node, how long it is away
    stops: tuple[tuple[str, float], ...]


def draw_faults(
    random: np.random.Generator, nodes: Sequence[str], devices: Sequence[str], gap_s: float
) -> Iterator[Fault]:
    """Yield faults without end. Gaps are uniform around `gap_s`."""
    while True:
        after_s = float(random.uniform(0.3, 1.7)) * gap_s
        draw, hit = float(random.uniform()), list(nodes)
        for size, share in CROWDS:
            if draw < share:
                hit = [str(node) for node in random.choice(nodes, size, replace=False)]
                break
            draw -= share
        else:
            if random.uniform() < 0.5:
                hit = list(devices)
        away = [(node, float(random.uniform(*DOWN_S))) for node in hit]
        stopped = random.uniform(size=len(away)) < STOP_SHARE
        yield Fault(
            after_s,
            tuple(pair for pair, stop in zip(away, stopped, strict=True) if not stop),
            tuple(pair for pair, stop in zip(away, stopped, strict=True) if stop),
        )


def draw_spared(random: np.random.Generator, nodes: Sequence[str]) -> list[set[str]]:
    """By epoch: the nodes that no fault hits. Each node is spared once."""
    order = [str(node) for node in random.permutation(list(nodes))]
    return [set(order[epoch::EPOCHS]) for epoch in range(EPOCHS)]
