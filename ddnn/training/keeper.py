"""What a training leaves where it does not run to its end: checkpoints, the best weights so far.

A keeper goes with one call of `fit`. It saves the state from time to time, so that a training that
was killed goes on and gives the same network, bit for bit; it measures the averaged weights on
validation data, so that training ends when they become no better; and it ends the training where
the user asks for that.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddnn.training.checkpoints import Checkpoints, remove_checkpoints

SAVE_EVERY_S = 30.0
CHECKS = 25  # of the validation loss, over a whole training
BATCH = 64


class Averages(Protocol):
    """The averaged weights of a network under training; see ddnn.training.fit."""

    @property
    def variables(self) -> list[Any]: ...

    def swap(self) -> None:
        """Exchange them with the network's weights."""
        ...


class Kept:
    """An array that is saved like a variable."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values)

    def assign(self, values: Any) -> None:
        self.values[...] = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.values


class Losses(Kept):
    """The losses of all steps so far."""

    def __init__(self, steps: int) -> None:
        super().__init__(np.full(steps, np.nan))
        self.count = 0

    def add(self, loss: float) -> None:
        self.values[self.count] = loss
        self.count += 1

    def compute_mean(self) -> float:
        """The mean of the last tenth."""
        return float(np.mean(self.values[self.count - max(1, self.count // 10) : self.count]))


@dataclass
class Keeper:
    """Keeps one training.

    checkpoints: where the state is saved; None: nowhere
    resume:      whether to go on from what is saved
    stop:        whether the user wants it to end
    measure:     the validation loss of the network's weights; None: it is not measured
    patience:    how many checks without a better loss end the training
    """

    phase: str = "training"
    checkpoints: Checkpoints | None = None
    resume: bool = False
    stop: Callable[[], bool] = lambda: False
    measure: Callable[[], float] | None = None
    patience: int = 0
    first: int = 0  # steps that a former process has done
    done: int = 0  # steps
    _variables: list[Any] = field(default_factory=list)
    _weights: list[Any] = field(
        default_factory=list
    )  # what is measured: averages, if there are any
    _averages: Averages | None = None
    _begun_s: float = 0.0
    _saved_s: float = 0.0
    _best: list[Kept] = field(default_factory=list)  # weights
    _score: Kept = field(default_factory=lambda: Kept([np.inf, 0.0]))  # the best loss, checks since

    def begin(self, variables: Sequence[Any], averages: Averages | None, steps: int) -> Losses:
        """Take the state of a training, and set it to what was saved."""
        losses = Losses(steps)
        self._averages = averages
        self._weights = list(averages.variables if averages else variables)
        self._variables = [*variables, *(averages.variables if averages else ()), losses]
        if self.measure is not None:
            self._best = [Kept(variable) for variable in self._weights]
            self._variables += [*self._best, self._score]
        self._begun_s = self._saved_s = time.monotonic()
        if self.checkpoints is not None and self.resume:
            self.first = self.done = self.checkpoints.load(self.phase, self._variables)
            losses.count = self.first
        return losses

    def is_over(self, step: int, steps: int, warm_up_steps: int) -> bool:
        """Whether training ends after this step; also saves and measures.

        Where the user asks for the end, it comes once the weights are of use.
        """
        self.done = step
        if self.stop() and step >= warm_up_steps:
            return True
        is_due = step % max(1, steps // CHECKS) == 0 and step >= warm_up_steps
        if self.measure is not None and is_due and self._check(self.measure):
            return True
        self._save(step, step == steps)
        return False

    def _save(self, step: int, is_last: bool) -> None:
        """Save the state now and then, and at the end of a long training."""
        now_s = time.monotonic()
        if self.checkpoints is None or now_s - self._begun_s < SAVE_EVERY_S:
            return
        if is_last or now_s - self._saved_s >= SAVE_EVERY_S:
            self.checkpoints.save(self.phase, self._variables, step)
            self._saved_s = now_s

    def finish(self) -> None:
        """Set the weights to the best that were measured."""
        if np.isfinite(self._score.values[0]):
            for variable, best in zip(self._weights, self._best, strict=True):
                variable.assign(best.values)

    def _check(self, measure: Callable[[], float]) -> bool:
        averages = self._averages
        if averages:
            averages.swap()
        loss = measure()
        if averages:
            averages.swap()
        best_loss, worse = self._score.values
        if loss < best_loss:
            for kept, variable in zip(self._best, self._weights, strict=True):
                kept.assign(variable)
            best_loss, worse = loss, 0
        else:
            worse += 1
        self._score.assign([best_loss, worse])
        return bool(worse >= self.patience)


def _never() -> AbstractContextManager[Callable[[], bool]]:
    return nullcontext(lambda: False)


@dataclass(frozen=True)
class Keeping:
    """How trainings of one command are kept.

    directory: of checkpoints; None: there are none. patience: see Keeper; 0: all steps are done.
    open_interrupt: a context in which a training runs; it yields a function that returns whether
    the user has asked to end it.
    """

    directory: Path | None = None
    resume: bool = False
    open_interrupt: Callable[[], AbstractContextManager[Callable[[], bool]]] = _never
    patience: int = 0

    def make_keeper(
        self,
        phase: str,
        stop: Callable[[], bool],
        describe: Callable[[], str],
        measure: Callable[[], float],
    ) -> Keeper:
        """The keeper of one training; describe: returns all that makes it what it is."""
        checkpoints = None
        if self.directory is not None:
            job = hashlib.sha256(describe().encode()).hexdigest()
            checkpoints = Checkpoints(self.directory, job)
        return Keeper(
            phase.replace(" ", "-"),
            checkpoints,
            self.resume,
            stop,
            measure if self.patience else None,
            self.patience,
        )

    def clear(self) -> None:
        """Remove the checkpoints: the training has come to its end."""
        if self.directory is not None and self.directory.is_dir():
            remove_checkpoints(self.directory)
            with suppress(OSError):  # other files are in it
                self.directory.rmdir()


def digest_arrays(*arrays: NDArray[Any]) -> str:
    """A checksum of arrays, for the description of a job."""
    checksum = hashlib.sha256()
    for array in arrays:
        checksum.update(f"{array.dtype}{array.shape}".encode())
        checksum.update(np.ascontiguousarray(array).data)
    return checksum.hexdigest()


def make_measure(
    compute: Callable[[Any, Any, Any], Any],
    images: NDArray[np.uint8],
    labels: NDArray[np.int32],
    view_labels: NDArray[np.int32],
) -> Callable[[], float]:
    """The mean of compute(images, labels, view_labels) over all samples, in batches."""
    compiled = tf.function(compute)

    def measure() -> float:
        total = 0.0
        for start in range(0, len(labels), BATCH):
            part = slice(start, start + BATCH)
            loss = compiled(
                tf.constant(images[part], tf.float32),
                tf.constant(labels[part]),
                tf.constant(view_labels[part]),
            )
            total += float(loss) * len(labels[part])
        return total / len(labels)

    return measure
