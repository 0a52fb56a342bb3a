"""A node's exchange of copies: which it holds, which it fetches, and which it gives to others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ddnn.errors import LocalProtocolError
from ddnn.pipeline.blobs import pack_arrays
from ddnn.pipeline.copies import CopyStore
from ddnn.pipeline.runner import StageRunner
from ddnn.pipeline.sources import Copy, Origin, Stamp
from ddnn.pipeline.stage import Stage
from ddnn.pipeline.transfers import Fetched, Fetcher, Key, make_part
from ddnn.protocol.machine import Call
from ddnn.protocol.train_messages import TrainAssignment, TrainFetch, TrainPart

Sent = Call | tuple[str, TrainPart]
"""Work to do, or a message and the node that it is for."""


class ReadJob(NamedTuple):
    """The token of the Call that reads a layer of a halted stage, for another node."""

    layer: int
    stamp: Stamp
    training: int  # the number of trainings before this one: stamps of each begin again


class Exchange:
    """Copies of layers of one node. `runner` is the node's latest one, None where it has none."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.store, self.fetcher = CopyStore(), Fetcher(node)
        self._training = 0
        self._reading: set[ReadJob] = set()
        self._asking: dict[Key, dict[str, TrainFetch]] = {}  # for copies that are made later

    def clear(self) -> None:
        """Forget everything: another training begins."""
        self._training += 1
        self.store.clear()
        self._reading.clear()
        self.stop()

    def stop(self) -> None:
        """Fetch nothing any more, and promise nothing: the term is over."""
        self.fetcher.cancel(lambda key, origin: True)
        self._asking.clear()

    def list_copies(self, runner: StageRunner | None) -> list[Copy]:
        """What this node holds. Where snapshots must be consistent, live weights count only if no
        batch is in flight and the other nodes can be at the same version."""
        copies = self.store.list_copies()
        if runner is not None and runner.is_exact:
            stamp = runner.stamp
            layers = range(runner.stage.start, runner.stage.stop)
            copies += [Copy(layer, stamp, Origin.LIVE) for layer in layers]
        return copies

    def fetch_sources(self, assignment: TrainAssignment, runner: StageRunner | None) -> set[Key]:
        """Begin to fetch the copies that a stage begins with and that are not here; which they are.

        All are kept until the next stage: newer ones that are here would take their place.
        """
        self.store.pin("stage", {key.stamp for key, _ in list_sources(assignment)})
        missing = {
            key: holder
            for key, holder in list_sources(assignment)
            if self.store.get(*key) is None and not _is_live(key, runner)
        }
        for key, holder in missing.items():
            self.fetcher.start(key, holder, Origin.CHAIN)
        return set(missing)

    def find_states(
        self, assignment: TrainAssignment, runner: StageRunner | None
    ) -> tuple[dict[int, bytes], dict[int, Stage]]:
        """By layer the copy that it begins with, or the stage of the term before that holds it.

        Raises LocalProtocolError where this node has neither.
        """
        blobs, live = {}, {}
        for key, _ in list_sources(assignment):
            blob = self.store.get(*key)
            if blob is not None:
                blobs[key.layer] = blob
            elif runner is not None and _is_live(key, runner):
                live[key.layer] = runner.stage
            else:
                raise LocalProtocolError(
                    f"{self.node} has no copy of layer {key.layer} of {tuple(key.stamp)}"
                )
        return blobs, live

    def serve(self, fetch: TrainFetch, runner: StageRunner | None, running: bool) -> list[Sent]:
        """Send a part of a copy; read the layer first, or wait until the copy is made."""
        key = Key(fetch.layer, Stamp(fetch.term, fetch.version))
        blob = self.store.get(*key)
        if blob is None and runner is not None:
            if not running and runner.busy is None and _is_live(key, runner):
                self._asking.setdefault(key, {})[fetch.sender] = fetch
                return self._read(ReadJob(*key, self._training), runner)
            if running and runner.will_copy(key.stamp):
                self._asking.setdefault(key, {})[fetch.sender] = fetch
                return []
        return [(fetch.sender, make_part(fetch, self.node, blob))]

    def _read(self, job: ReadJob, runner: StageRunner) -> list[Sent]:
        if job in self._reading:
            return []
        self._reading.add(job)
        stage = runner.stage
        return [Call(job, lambda: pack_arrays(stage.read_layer(job.layer)))]

    def take_read(self, job: ReadJob, blob: bytes | None) -> list[Sent]:
        """A layer was read; None where that failed."""
        if job.training != self._training:
            return []
        self._reading.discard(job)
        if blob is not None:
            self.store.add(job.layer, job.stamp, Origin.LIVE, blob)
        return self._answer(Key(job.layer, job.stamp), blob)

    def _answer(self, key: Key, blob: bytes | None) -> list[Sent]:
        waiting = self._asking.pop(key, {}).values()
        return [(fetch.sender, make_part(fetch, self.node, blob, waited=True)) for fetch in waiting]

    def take_part(self, part: TrainPart, now_s: float) -> Fetched | None:
        """A part arrived; the copy where it is complete or not to be had."""
        fetched = self.fetcher.take(part, now_s)
        if fetched is not None and fetched.blob is not None:
            self.store.add(*fetched.key, fetched.origin, fetched.blob)
        return fetched

    def keep_snapshot(
        self, runner: StageRunner, blobs: Mapping[int, bytes], keep_all: bool
    ) -> list[Sent]:
        """Keep the states of the layers, give them to those who wait, and fetch those of the node
        before (chain). keep_all: also keep copies of layers that are no concern of this place."""
        stamp, place = runner.stamp, runner.place
        sent: list[Sent] = []
        for layer, blob in blobs.items():
            self.store.add(layer, stamp, Origin.LIVE, blob)
            sent += self._answer(Key(layer, stamp), blob)
        assignment = place.assignment
        first = runner.version == assignment.version
        due = assignment.chain_every and runner.version % assignment.chain_every == 0
        if place.count > 1 and (first or due):
            self.fetcher.cancel(lambda key, origin: origin is Origin.CHAIN)  # newer ones instead
            before = range(*assignment.ranges[place.index - 1])
            for layer in before:
                if self.store.get(layer, stamp) is None:
                    self.fetcher.start(Key(layer, stamp), place.before, Origin.CHAIN)
            if not first and not keep_all:  # those of the term before are of no use any more
                self.store.keep_layers({*blobs, *before})
        return sent


def list_sources(assignment: TrainAssignment) -> list[tuple[Key, str]]:
    """The copies that the receiver of an assignment begins with, and the node that holds each."""
    return [(Key(layer, Stamp(*stamp)), holder) for layer, holder, *stamp in assignment.sources]


def _is_live(key: Key, runner: StageRunner | None) -> bool:
    return (
        runner is not None
        and key.stamp == runner.stamp
        and runner.stage.start <= key.layer < runner.stage.stop
    )
