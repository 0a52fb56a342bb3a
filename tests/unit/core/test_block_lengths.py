"""Nearly equal parts: nothing lost, nothing doubled, back together as before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.core.blocks import join, sizes, slices
from ddnn.errors import ConfigError

TOTALS = st.integers(0, 200)
PARTS = st.integers(1, 60)


@given(total=TOTALS, parts=PARTS)
def test_sizes_are_nearly_equal(total: int, parts: int) -> None:
    lengths = sizes(total, parts)
    assert len(lengths) == parts
    assert sum(lengths) == total
    assert max(lengths) - min(lengths) <= 1
    assert list(lengths) == sorted(lengths, reverse=True)


def test_sizes_by_hand() -> None:
    assert sizes(10, 4) == (3, 3, 2, 2)
    assert sizes(2, 5) == (1, 1, 0, 0, 0)
    assert sizes(0, 2) == (0, 0)


@given(total=TOTALS, parts=PARTS)
def test_slices_lie_end_to_end(total: int, parts: int) -> None:
    line = list(range(total))
    assert [line[where] for where in slices(total, parts)] == [
        part.tolist() for part in np.array_split(line, parts)
    ]


@given(total=st.integers(1, 40), parts=PARTS, rank=st.integers(1, 4))
def test_padded_blocks_are_joined_without_their_padding(total: int, parts: int, rank: int) -> None:
    whole = np.random.default_rng(total).normal(size=(*(2, 3, 1)[: rank - 1], total))
    blocks = []
    for where in slices(total, parts):
        block = np.full((*whole.shape[:-1], -(-total // parts)), np.nan)
        block[..., : where.stop - where.start] = whole[..., where]
        blocks.append(block)
    np.testing.assert_array_equal(join(blocks, total), whole)


@pytest.mark.parametrize(("total", "parts"), [(3, 0), (3, -1), (-1, 2)])
def test_no_parts_are_refused(total: int, parts: int) -> None:
    with pytest.raises(ConfigError, match="at least one part"):
        sizes(total, parts)
