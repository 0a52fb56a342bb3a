"""Training that goes on from states, on other stages and after a crash, is as if never stopped."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.runtime.archive import read_all
from ddnn.training.stages.checkpoint import read_checkpoint, write_checkpoint
from ddnn.training.stages.factory import read_states
from ddnn.training.stages.optimizers import OptimizerSettings
from tests.unit.training.small_networks import assert_same, list_dropped, make_stages, train

SGD = OptimizerSettings(learning_rate=0.05, steps=6)
ADAM = OptimizerSettings(method="adam", learning_rate=0.01, warm_up_steps=4)


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_going_on_from_a_checkpoint_is_not_having_stopped(settings, tmp_path):
    file = tmp_path / "new" / "pipeline.npz"
    stages = make_stages(list_dropped, optimizer=settings)
    first = [stages.build(0, 2), stages.build(2, 3)]
    train(first, 3)
    write_checkpoint(file, read_states(first), {"batch": 3, "job": "é"})
    expected = train(first, 5, start=3)

    found = read_checkpoint(file)
    assert found.notes == {"batch": 3, "job": "é"}
    fresh = make_stages(list_dropped, optimizer=settings)
    cut = [
        fresh.build(0, 1, found.states, version=3),
        fresh.build(1, 3, found.states, version=3),
    ]
    assert train(cut, 5, start=3) == expected
    assert_same(first, cut)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_without_a_file_there_is_no_checkpoint(tmp_path):
    assert read_checkpoint(tmp_path / "pipeline.npz") is None


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    file = tmp_path / "pipeline.npz"
    write_checkpoint(file, {0: {"weight0": np.ones(3, np.float32)}}, {})
    whole = file.read_bytes()
    for content in (b"", whole[:-30], whole.replace(b"0/weight0", b"x/weight0")):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=str(file)):
            read_checkpoint(file)
    np.savez(file, weight=np.ones(3))
    with pytest.raises(ConfigError, match="no checkpoint of a pipeline"):
        read_checkpoint(file)


def test_only_numbers_within_the_limit_are_read(tmp_path):
    file = tmp_path / "arrays.npz"
    np.savez(file, a=np.zeros(100, np.float32), b=np.int64(3))
    arrays = read_all(file, 1000)
    assert arrays["a"].shape == (100,)
    assert arrays["b"] == 3
    with pytest.raises(ConfigError, match="at most 500 are read"):
        read_all(file, 500)
    np.savez(file, a=np.array(["text"]))
    with pytest.raises(ConfigError, match="expected numbers"):
        read_all(file, 1000)
    np.savez(file, a=np.array([{}], object), allow_pickle=True)
    with pytest.raises(ConfigError, match="expected numbers"):
        read_all(file, 10000)
