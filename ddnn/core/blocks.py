"""A length cut into nearly equal parts, and padded blocks of such parts joined again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddnn.core.section import Array
from ddnn.errors import ConfigError


def sizes(total: int, parts: int) -> tuple[int, ...]:
    """`parts` lengths that sum to `total`, differ by at most one, the longer ones first.

    With more parts than `total` the last ones are 0. Raises ConfigError below one part.
    """
    if parts < 1 or total < 0:
        raise ConfigError(f"{total} cannot be cut into {parts} parts; expected at least one part")
    short, longer = divmod(total, parts)
    return (short + 1,) * longer + (short,) * (parts - longer)


def slices(total: int, parts: int) -> tuple[slice, ...]:
    """Where the parts lie: one slice per part, end to end."""
    ends = np.cumsum(sizes(total, parts)).tolist()
    return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))


def join(blocks: Sequence[Array], total: int) -> Array:
    """Blocks of the last axis, each padded to the longest, end to end without the padding."""
    lengths = sizes(total, len(blocks))
    return np.concatenate(
        [block[..., :length] for block, length in zip(blocks, lengths, strict=True)], axis=-1
    )
