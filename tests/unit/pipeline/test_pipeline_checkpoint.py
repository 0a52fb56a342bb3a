"""The central node's checkpoint is what it was, and is of the same training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.local_site.pipeline_checkpoint import CheckpointFile
from ddnn.pipeline.blobs import pack_arrays
from ddnn.pipeline.settings import Checkpoint
from ddnn.pipeline.sources import Stamp

FACTS = {"network": "mlp", "batch": 8}
CHECKPOINT = Checkpoint(
    "run1",
    Stamp(3, 40),
    {0: pack_arrays({"kernel": np.ones((2, 3), np.float32)}), 1: pack_arrays({})},
    ended=False,
)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    assert CheckpointFile(path, FACTS).read() is None
    CheckpointFile(path, FACTS).write(CHECKPOINT)
    file = CheckpointFile(path, FACTS)
    assert file.read() == CHECKPOINT
    assert file.latest == CHECKPOINT
    file.remove()
    assert file.read() is None


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    CheckpointFile(path, FACTS).write(CHECKPOINT)
    with pytest.raises(ConfigError, match=r"batch differ.*another --checkpoint"):
        CheckpointFile(path, {**FACTS, "batch": 9}).read()


def test_a_training_that_ended_is_not_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    ended = Checkpoint("run1", Stamp(3, 80), CHECKPOINT.layers, ended=True)
    CheckpointFile(path, FACTS).write(ended)
    found = CheckpointFile(path, FACTS).read()
    assert found is not None
    assert found.ended
