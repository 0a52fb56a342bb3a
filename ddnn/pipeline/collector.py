"""The central node's copies of all layers (global replication), and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ddnn.pipeline.exchange import Exchange
from ddnn.pipeline.planner import Arrangement
from ddnn.pipeline.runner import StageRunner
from ddnn.pipeline.settings import Checkpoint
from ddnn.pipeline.sources import Origin, Stamp
from ddnn.pipeline.transfers import Key
from ddnn.protocol.machine import Call, Returned

PURPOSE = "collection"  # for which copies are pinned
STALE_PERIODS = 2  # a collection that takes longer begins again with newer copies


class SaveJob(NamedTuple):
    """The token of the Call that writes a checkpoint."""

    stamp: Stamp
    ended: bool


class Collector:
    """Collects the copies of one stamp of all layers, one stamp after the other."""

    def __init__(
        self, run: str, exchange: Exchange, save: Callable[[Checkpoint], None] | None
    ) -> None:
        """save: writes a checkpoint, in another thread; None: there is no disk."""
        self.run, self.exchange = run, exchange
        self.complete: Stamp | None = None  # the latest that is whole
        self.saved: SaveJob | None = None  # the latest that is on disk
        self._target: Stamp | None = None
        self._save = save

    def stop(self) -> None:
        """The term is over: its copies are not to be had any more."""
        self._target = None

    def update(self, runner: StageRunner, arrangement: Arrangement) -> list[Call]:
        """Go on; the Call that saves a checkpoint where a collection has become whole."""
        self._choose_target(runner, arrangement)
        target = self._target
        if target is None:
            return []
        missing = False
        for node, (start, stop) in zip(arrangement.nodes, arrangement.ranges, strict=True):
            for layer in range(start, stop):
                key = Key(layer, target)
                if self.exchange.store.get(*key) is not None:
                    continue
                missing = True
                if node != self.exchange.node:
                    self.exchange.fetcher.start(key, node, Origin.GLOBAL)
        if missing:
            return []
        self.complete, self._target = target, None
        self.exchange.store.pin(PURPOSE, [target])
        ended = runner.backwards >= runner.place.assignment.batches and target == runner.stamp
        return self._make_save(arrangement, SaveJob(target, ended))

    def take_saved(self, job: SaveJob, returned: Returned) -> None:
        if not returned.error:
            self.saved = job

    def _choose_target(self, runner: StageRunner, arrangement: Arrangement) -> None:
        every, version = arrangement.global_every, runner.version
        ended = runner.backwards >= runner.place.assignment.batches
        stamp = runner.stamp if ended else Stamp(runner.place.term, version // every * every)
        if runner.stamp == stamp and runner.copy_due:
            return  # this node's own copy is made first
        target = self._target
        is_fresh = target is not None and version < target.version + STALE_PERIODS * every
        if target != stamp and is_fresh and not ended:
            return
        done = self.complete is not None and stamp <= self.complete
        first = runner.place.assignment.version
        if target == stamp or done or stamp.version < first or stamp.version == 0:
            return
        if target is not None:
            self.exchange.fetcher.cancel(
                lambda key, origin: origin is Origin.GLOBAL and key.stamp == target
            )
        self._target = stamp
        self.exchange.store.pin(PURPOSE, [stamp, *([self.complete] if self.complete else [])])

    def _make_save(self, arrangement: Arrangement, job: SaveJob) -> list[Call]:
        stop = arrangement.ranges[-1][1]
        blobs = {n: self.exchange.store.get(n, job.stamp) or b"" for n in range(stop)}
        checkpoint = Checkpoint(self.run, job.stamp, blobs, job.ended)
        save = self._save
        return [Call(job, lambda: save(checkpoint) if save is not None else None, lent=True)]
