"""Samples that training has seen are known again, wherever they stand in another data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.runtime.learned import LEARNED, find_learned, write_learned

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 2, 4, 4, 3), np.uint8)


def test_samples_are_known_by_all_views_that_see_something(tmp_path: Path) -> None:
    assert find_learned(tmp_path, IMAGES) is None
    write_learned(tmp_path, IMAGES[:3], IMAGES[3:4])
    asked = IMAGES[::-1].copy()  # 5 4 3 2 1 0
    asked[2, 0] = 0  # its camera was away
    asked[3] = 0  # nobody sees anything
    asked[4, 1] = 7  # one view is new
    assert find_learned(tmp_path, asked).tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_a_broken_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LEARNED).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{LEARNED}: .*copy the bundle again"):
        find_learned(tmp_path, IMAGES)
