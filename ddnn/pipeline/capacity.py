"""Capacities measured while training, and when they are worth a new cut (FTPipeHD, section 2.5)."""

from __future__ import annotations

from collections.abc import Sequence

from ddnn.errors import ConfigError

GAIN = 0.1  # of the time per batch: what a new cut must save
HORIZON = 100  # batches over which the new cut must pay for the move


def measure_capacity(
    measured_s: float, layer_times_s: Sequence[float], start: int, stop: int
) -> float:
    """C_i of a device that takes `measured_s` per batch for the layers [start, stop).

    C_i = (t_forward + t_backward) / sum of T^0(l) over its layers: larger = slower, 1 for the
    central node. layer_times_s: T^0, forward and backward of each layer on the central node.
    """
    expected_s = sum(layer_times_s[start:stop])
    if not (0 <= start < stop <= len(layer_times_s)) or expected_s <= 0 or measured_s <= 0:
        raise ConfigError(
            f"layers [{start}, {stop}) of {len(layer_times_s)} take {expected_s} s on the central "
            f"node and {measured_s} s here; expected a range with positive times"
        )
    return measured_s / expected_s


def is_worth_moving(
    current_s: float,
    planned_s: float,
    move_s: float = 0.0,
    gain: float = GAIN,
    horizon: int = HORIZON,
) -> bool:
    """Whether a new cut is worth it: hysteresis, so that noise does not move layers to and fro.

    current_s, planned_s: seconds per batch now and then. move_s: what the move itself takes, which
    `horizon` batches must win back.
    """
    saved_s = current_s - planned_s
    return saved_s > gain * current_s and saved_s * horizon > move_s
