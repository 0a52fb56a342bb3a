"""Communication cost per device and sample (DDNN, section III-E; paper notes A6)."""

from __future__ import annotations

from ddnn.core.bits import packed_bytes
from ddnn.errors import ConfigError


def compute_communication_bytes(
    classes: int, local_exit_share: float, filters: int, outputs: int, bytes_per_score: int = 4
) -> float:
    """Compute c = 4 |C| + (1 - l) f o / 8: the mean payload bytes of a device for one sample.

    `outputs`: activations per filter of the device's last block. `bytes_per_score` is 4 in the
    paper; float16 makes it 2, 8-bit integers 1. Headers and the hop edge -> cloud do not count.
    Raises ConfigError for a share that is none.
    """
    if not 0 <= local_exit_share <= 1:
        raise ConfigError(f"local_exit_share is {local_exit_share}; expected 0 to 1")
    features_bytes = packed_bytes(filters * outputs)
    return bytes_per_score * classes + (1 - local_exit_share) * features_bytes
