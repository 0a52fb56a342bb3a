"""Workers of unequal power: a strong device takes the place of several virtual workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from ddnn.errors import ConfigError


def assign_virtual_workers(power: Mapping[str, float], n: int) -> dict[str, tuple[int, ...]]:
    """The n virtual workers, divided among the devices in proportion to power, at least one each.

    By the largest remainder; of equal remainders, the first by name. Das et al., IoT-J 2024: a
    device of capacity c takes the place of c of the n workers, and any s virtual stragglers are
    tolerated. Raises ConfigError where there are fewer than one for each, or a power is not a
    positive number.
    """
    if not power or n < len(power):
        raise ConfigError(
            f"{n} virtual workers for {len(power)} devices: expected at least one device, and at "
            "least one virtual worker for each"
        )
    for name, value in power.items():
        if not (isfinite(value) and value > 0):
            raise ConfigError(f"power of {name} is {value}: a positive number is needed")
    largest = max(power.values())
    parts = {name: power[name] / largest for name in sorted(power)}
    counts = dict.fromkeys(power, 1)
    strong = set(power)
    while True:  # a device whose quota is below one gets one; the others divide the rest
        total = sum(part for name, part in parts.items() if name in strong)
        rest = n - (len(power) - len(strong))
        quotas = {name: rest * parts[name] / total for name in strong}
        weak = {name for name in strong if quotas[name] < 1}
        if not weak:
            break
        strong -= weak
    counts.update({name: int(quota) for name, quota in quotas.items()})
    by_remainder = sorted(strong, key=lambda name: (int(quotas[name]) - quotas[name], name))
    for name in by_remainder[: n - sum(counts.values())]:
        counts[name] += 1
    assigned, start = {}, 0
    for name in power:
        assigned[name] = tuple(range(start, start + counts[name]))
        start += counts[name]
    return assigned


def count_virtual_stragglers(assigned: Mapping[str, Sequence[int]], devices: int) -> int:
    """The largest number of virtual workers on any `devices` devices: the least s to tolerate.

    Raises ConfigError for a negative number of devices.
    """
    if devices < 0:
        raise ConfigError(f"devices: got {devices}, expected 0 or more")
    counts = sorted((len(workers) for workers in assigned.values()), reverse=True)
    return sum(counts[:devices])
