"""A training that is killed, ended, or no longer becomes better leaves a network of use."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ddnn.adapters.litert import LiteRtSection
from ddnn.data import Dataset
from ddnn.exits.hierarchy import make_configuration
from ddnn.local_site.interrupts import open_interrupt
from ddnn.runtime.bundle import read_manifest
from ddnn.training import keeper as keeper_module
from ddnn.training.checkpoints import Checkpoints
from ddnn.training.fit import Fit, fit
from ddnn.training.keeper import Keeper, Keeping
from ddnn.training.models import Network
from ddnn.training.train import make_batches
from ddnn.training.train import train as train_whole
from tests.unit.training.test_train_checks import TINY

STEPS = 8
SETTINGS = Fit(steps=STEPS, batch=6, warm_up_steps=2, seed=3)


class Killed(BaseException):
    """The process is gone."""


def train(
    dataset: Dataset,
    keeper: Keeper | None = None,
    progress: Callable[[int], None] = lambda step: None,
    settings: Fit = SETTINGS,
) -> list[np.ndarray]:
    """Train a new network; return its weights, and the mean loss."""
    keras.utils.set_random_seed(settings.seed)
    hierarchy = make_configuration("c", 2)
    network = Network(hierarchy, TINY, dataset.image_shape, len(dataset.classes))
    loss = fit(
        network,
        make_batches(dataset, 2),
        settings,
        lambda step, steps, loss: progress(step),
        keeper,
    )
    weights = [np.asarray(w) for model in network.models for w in model.trainable_weights]
    return [*weights, np.array(loss)]


def are_equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Tracing a graph takes longer than the few steps of these trainings."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_a_training_that_was_killed_gives_the_same_network(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, killed twice, and measured on the way."""
    monkeypatch.setattr(keeper_module, "SAVE_EVERY_S", 0.0)
    measured = iter(range(0, -100, -1))  # always better
    watched = Keeper(measure=lambda: float(next(measured)), patience=1)
    expected = train(dataset, watched)
    checkpoints, done = Checkpoints(tmp_path, "job"), []

    def die(step: int) -> None:
        done.append(step)
        if len(done) in (3, 6):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            train(dataset, Keeper(checkpoints=checkpoints, resume=True), die)
    last = Keeper(checkpoints=checkpoints, resume=True)
    assert are_equal(train(dataset, last, die), expected)
    assert done == [1, 2, 3, 3, 4, 5, 5, 6, 7, 8]  # steps that were not saved are done again
    assert (last.first, last.done) == (4, STEPS)


def test_the_user_ends_it_and_the_weights_so_far_are_used(dataset: Dataset) -> None:
    asked = [False]

    def ask(step: int) -> None:
        asked[0] = step == 4

    keeper = Keeper(stop=lambda: asked[0])
    found = train(dataset, keeper, ask)
    assert keeper.done == 4
    assert all(np.isfinite(weight).all() for weight in found)


def test_a_training_that_has_hardly_begun_ends_once_its_weights_are_of_use() -> None:
    keeper = Keeper(stop=lambda: True)
    assert [keeper.is_over(step, 8, 3) for step in (1, 2, 3)] == [False, False, True]


def test_the_user_ends_the_teacher_and_then_its_students(dataset: Dataset, tmp_path: Path) -> None:
    """Each Ctrl-C ends one training; between trainings it is none of theirs."""
    steps: list[str] = []

    def interrupt(what: str, step: int, total: int) -> None:
        if total == 40:  # the trainings
            steps.append("teacher" if "teacher" in what else "student")
            if step == 4:
                signal.raise_signal(signal.SIGINT)

    train_whole(
        dataset,
        make_configuration("c", 2),
        tmp_path / "bundle",
        LiteRtSection,
        name="two",
        data="npz",
        architecture=TINY,
        settings=Fit(steps=40, batch=6, warm_up_steps=2, distillation="teacher"),
        keeping=Keeping(open_interrupt=open_interrupt),
        progress=interrupt,
    )
    assert steps == ["teacher"] * 4 + ["student"] * 4
    assert read_manifest(tmp_path / "bundle")[0].training["steps_done"] == 4


class Stub:
    """Averages of one weight, which is the number of the step."""

    def __init__(self) -> None:
        self.variables: list[Any] = [tf.Variable(0.0)]
        self.swapped = False

    def swap(self) -> None:
        self.swapped = not self.swapped


def test_training_ends_when_the_validation_loss_becomes_no_better() -> None:
    """The network is that of the best check."""
    averages, losses = Stub(), iter([3.0, 2.0, 2.5, 2.5, 1.0])

    def measure() -> float:
        assert averages.swapped
        return next(losses)

    keeper = Keeper(measure=measure, patience=2)
    keeper.begin([], averages, 50)
    for step in range(1, 51):
        averages.variables[0].assign(float(step))
        if keeper.is_over(step, 50, 3):
            break
    assert keeper.done == 10  # checks after steps 4, 6, 8 and 10; the last two are no better
    keeper.finish()
    assert float(averages.variables[0]) == 6.0
    assert not averages.swapped


def test_checkpoints_of_another_job_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "SAVE_EVERY_S", 0.0)
    keeping = Keeping(tmp_path / "kept", resume=True)

    def begin(job: str) -> Keeper:
        keeper = keeping.make_keeper("training fold 1", lambda: False, lambda: job, lambda: 0.0)
        keeper.begin([tf.Variable(1.0)], Stub(), 8)
        return keeper

    begin("a").is_over(3, 8, 2)
    assert (begin("b").first, begin("a").first) == (0, 3)
    (tmp_path / "kept" / ".training.checkpoint.npz.part").touch()  # of a process that was killed
    keeping.clear()
    assert not (tmp_path / "kept").exists()


def test_the_first_interrupt_asks_and_the_second_aborts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with open_interrupt(True) as is_asked:
        assert not is_asked()
        signal.raise_signal(signal.SIGINT)
        assert is_asked()
        assert is_asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("killed_after", [5, 7, 9])
def test_a_training_that_was_killed_remembers_its_best_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    monkeypatch.setattr(keeper_module, "SAVE_EVERY_S", 0.0)
    losses = {4: 3.0, 6: 2.0, 8: 2.5, 10: 2.5}  # by step

    def run(last: int) -> tuple[int, float]:
        averages = Stub()

        def measure() -> float:
            return losses[step]

        checkpoints = Checkpoints(tmp_path, "job")
        keeper = Keeper(checkpoints=checkpoints, resume=True, measure=measure, patience=2)
        keeper.begin([], averages, 50)
        step = keeper.first
        while step < last:
            step += 1
            averages.variables[0].assign(float(step))
            if keeper.is_over(step, 50, 3):
                break
        keeper.finish()
        return keeper.done, float(averages.variables[0])

    run(killed_after)
    assert run(50) == (10, 6.0)
