"""Settings of a training run, and the checkpoint from which it can go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ddnn.errors import ConfigError
from ddnn.pipeline.sources import Restore, Stamp


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the central node. Periods and intervals are in optimizer steps.

    batches: at which training ends; in the synchronous mode these are micro-batches of equal size.
    micro_batches: of an optimizer step; 1: asynchronous. aggregate_every: after so many steps the
    weights become the mean of the versions in flight; 0: never. delay: every layer computes a batch
    with the weights of so many steps before, which makes the result independent of the cut
    (vertical sync with a fixed delay); 0: each stage uses its latest weights. deep: up to
    2 (N - i) - 1 batches in flight at stage i instead of N - i, see Place.depth. chain_every,
    global_every: 0: chosen from the failure rate and the bandwidth. restore: see
    `ddnn.pipeline.sources`; consistent snapshots are those of global_every.
    """

    batches: int
    micro_batches: int = 1
    aggregate_every: int = 0
    delay: int = 0
    chain_every: int = 0
    global_every: int = 0
    restore: Restore = "fresh"
    deep: bool = False
    least_workers: int = 0  # before training begins
    gather_s: float = 2.0  # after the last offer, before training begins
    repartition_at: tuple[int, int] = (10, 100)  # batches: at first, and then each time; 0: never
    choose_order: bool = True  # and leave devices out; False: all devices, in the order of names
    equal_capacities: bool = False  # do not measure (PipeDream); the first cut stays
    retry_s: float = 0.5  # before a command is repeated
    answer_s: float = 3.0  # within which a node answers a command
    hold_s: float = 30.0  # within which a node builds its stage, besides fetching its layers
    first_batch_s: float = 30.0  # within which a batch is done before batches were measured
    least_timeout_s: float = 0.5  # for a batch

    def __post_init__(self) -> None:
        if self.batches < 0 or self.micro_batches < 1 or self.batches % self.micro_batches:
            raise ConfigError(
                f"{self.batches} batches with {self.micro_batches} to an optimizer step; give a "
                "multiple"
            )
        if self.restore == "consistent" and not self.global_every:
            raise ConfigError(
                "restore 'consistent' needs the period of its snapshots: give global_every, such "
                "as 50"
            )

    @property
    def round_batches(self) -> int:
        """See TrainAssignment: micro-batches of a step, or batches from snapshot to snapshot."""
        if self.micro_batches > 1:
            return self.micro_batches
        return self.global_every if self.restore == "consistent" else 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the central node writes to disk: copies of all layers, as `pack_arrays` makes them.

    stamp: of the copies; version: at which training goes on. ended: the training is complete.
    """

    run: str
    stamp: Stamp
    layers: Mapping[int, bytes] = field(repr=False)
    ended: bool = False
