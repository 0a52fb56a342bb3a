"""Workers of unequal power: a strong one stands for several virtual workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from ddnn.errors import ConfigError


def virtual_workers(power: Mapping[str, float], n: int) -> dict[str, tuple[int, ...]]:
    """The n virtual workers shared out in proportion to power, at least one each.

    By the largest remainder; of equals, the first by name. Das et al., IoT-J 2024: a device of
    capacity c stands for c of the n workers, and any virtual stragglers up to s are tolerated.
    """
    if not power or n < len(power):
        raise ConfigError(f"{n} virtual workers cannot be shared out among {len(power)}")
    for name, value in power.items():
        if not (isfinite(value) and value > 0):
            raise ConfigError(f"power of {name} is {value}: a positive number is needed")
    largest = max(power.values())
    parts = {name: power[name] / largest for name in sorted(power)}
    counts = dict.fromkeys(power, 1)
    strong = set(power)
    while True:  # who is due less than one gets one, and is out of the sharing
        total = sum(part for name, part in parts.items() if name in strong)
        left = n - (len(power) - len(strong))
        due = {name: left * parts[name] / total for name in strong}
        weak = {name for name in strong if due[name] < 1}
        if not weak:
            break
        strong -= weak
    counts.update({name: int(share) for name, share in due.items()})
    by_remainder = sorted(strong, key=lambda name: (int(due[name]) - due[name], name))
    for name in by_remainder[: n - sum(counts.values())]:
        counts[name] += 1
    shares, start = {}, 0
    for name in power:
        shares[name] = tuple(range(start, start + counts[name]))
        start += counts[name]
    return shares


def virtual_stragglers(workers: Mapping[str, Sequence[int]], devices: int) -> int:
    """The most virtual workers that vanish with any `devices` devices: what s must tolerate."""
    return sum(sorted((len(held) for held in workers.values()), reverse=True)[:devices])
