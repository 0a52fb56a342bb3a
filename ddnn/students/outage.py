"""How likely all portions arrive: outages of independent devices, or k devices failed at random.

A portion is lost when every member of its group has failed. Devices fail independently of each
other: what fails several at once (power, the access point) is not in these figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import comb, prod
from typing import SupportsIndex

import msgspec

from ddnn.core.device import ASSUMED_OUTAGE, DeviceProfile
from ddnn.errors import ConfigError

ROUNDING = 1e-12  # relative: 0.1 * 0.1 is to meet a bound of 0.01


def assume_outages(
    devices: Iterable[DeviceProfile], assumed: float = ASSUMED_OUTAGE
) -> tuple[DeviceProfile, ...]:
    """The devices, with the assumed outage probability where none is known.

    Raises ConfigError where the assumed one is no probability below 1.
    """
    if not 0 <= assumed < 1:
        raise ConfigError(f"outage is {assumed}: expected a probability from 0 to below 1")
    return tuple(
        device
        if device.outage_probability is not None
        else msgspec.structs.replace(device, outage_probability=assumed)
        for device in devices
    )


def read_outage(device: DeviceProfile) -> float:
    """The device's outage probability. ConfigError where it is not known: see `assume_outages`."""
    if device.outage_probability is None:
        raise ConfigError(
            f"device {device.name}: its outage probability is not known; declare one, or assume one"
        )
    return device.outage_probability


def group_outage(outages: Iterable[float]) -> float:
    """The probability that all members fail, the product of theirs (independence)."""
    return prod(outages)


def meets_bound(outage: float, p_th: float) -> bool:
    """Whether a group of this outage probability meets the bound, but for rounding."""
    return outage <= p_th * (1 + ROUNDING)


def p_all(group_outages: Iterable[float]) -> float:
    """The probability that no group is lost, prod (1 - q_k)."""
    return prod(1 - outage for outage in group_outages)


def p_all_after(sizes: Sequence[int], k: int) -> Fraction:
    """The probability that no group is lost when k of all members failed, each set as likely.

    Exact. Failed sets that leave every group a member are counted by the generating function
    prod_g ((1 + x)^n_g - x^n_g), whose coefficient of x^k is their number, of comb(n, k).
    Raises ConfigError where k is not 0 to n.
    """
    devices = sum(sizes)
    check_failures(k, devices)
    counts = [1]  # of survived sets, by the number of failed devices
    for size in sizes:
        survived = [comb(size, failed) for failed in range(size)]
        counts = [
            sum(counts[i] * survived[j - i] for i in range(len(counts)) if 0 <= j - i < size)
            for j in range(len(counts) + size - 1)
        ]
    return Fraction(counts[k] if k < len(counts) else 0, comb(devices, k))


def mean_lost_after(sizes: Sequence[int], k: int) -> Fraction:
    """The mean fraction of groups lost when k of all members failed, each set as likely. Exact.

    Raises ConfigError without groups, and where k is not 0 to the number of members.
    """
    devices = sum(sizes)
    if not devices:
        raise ConfigError("no groups: expected the sizes of one or more")
    check_failures(k, devices)
    lost = sum(comb(devices - size, k - size) for size in sizes if size <= k)
    return Fraction(lost, comb(devices, k) * len(sizes))


def check_failures(k: int, devices: int) -> None:
    """ConfigError where k of the devices cannot fail."""
    if not isinstance(k, SupportsIndex) or not 0 <= k <= devices:
        raise ConfigError(f"k is {k}: of {devices} devices 0 to {devices} can fail")
