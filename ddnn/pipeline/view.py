"""How a training goes, as its central node publishes it."""

from __future__ import annotations

from ddnn.pipeline.arranger import Arranger
from ddnn.protocol.train_messages import MAX_ENTRIES, TrainEntry, TrainPlace, TrainState

TEXT_CHARS = 500


def make_state(driver: Arranger) -> TrainState:
    """The state of the training that this node drives."""
    progress, arrangement = driver.progress, driver.arrangement
    loss, accuracy = progress.summarize() or (None, None)
    version = progress.done // driver.settings.micro_batches
    complete = driver.collector.complete
    return TrainState(
        driver.run,
        driver.state.name,
        driver.term,
        progress.done,
        driver.settings.batches,
        version,
        min(complete.version, version) if complete is not None else 0,
        arrangement.chain_every if arrangement is not None else 0,
        arrangement.global_every if arrangement is not None else 0,
        loss,
        accuracy,
        progress.batch_s,
        progress.failures,
        len(driver.roster.list_usable()) - 1,
        _list_places(driver),
        [
            TrainEntry(entry.wall_s, entry.batch, entry.kind, entry.text[:TEXT_CHARS])
            for entry in list(progress.timeline)[-MAX_ENTRIES:]
        ],
    )


def _list_places(driver: Arranger) -> list[TrainPlace]:
    arrangement, batch_s = driver.arrangement, driver.progress.batch_s
    if arrangement is None:
        return []
    places = []
    for node, (start, stop) in zip(arrangement.nodes, arrangement.ranges, strict=True):
        busy_s = driver.roster.get(node).batch_s
        idle = max(0.0, 1 - busy_s / batch_s) if batch_s > 0 and busy_s > 0 else 1.0
        places.append(TrainPlace(node, start, stop, busy_s, idle))
    return places
