"""What a pipeline training shows while it runs, and what it reports at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ddnn.local_site.progress import print_note
from ddnn.pipeline.central_node import TrainCentral
from ddnn.protocol.train_messages import TrainEntry, TrainState

SHOWN = ("layout", "drain", "resend", "advance")  # printed; restarts are in the log


class TrainingDisplay:
    """A bar of batches, and a line for each entry of the timeline."""

    def __init__(self, progress: Callable[[str, int, int], None]) -> None:
        self._progress = progress
        self._seen: set[TrainEntry] = set()
        self._tenth = 0

    def show(self, state: TrainState) -> None:
        for entry in state.timeline:
            if entry not in self._seen:
                self._seen.add(entry)
                if entry.kind in SHOWN:
                    print_note(f"batch {entry.batch}: {entry.kind}: {entry.text}")
        if not state.places:
            self._progress(f"waiting for workers, {state.workers} so far", 0, state.end)
            return
        text = describe_state(state)
        self._progress(f"training, {text}", state.batches, state.end)
        tenth = 10 * state.batches // max(1, state.end)
        if tenth > self._tenth:  # for logs, in which no bar is visible
            self._tenth = tenth
            print_note(f"batch {state.batches} of {state.end}: {text}")


def describe_state(state: TrainState) -> str:
    """Loss, time per batch, and each stage with its time and the share in which it is idle."""
    words = [] if state.loss is None else [f"loss {state.loss:.3f}"]
    if state.batch_s:
        words.append(f"{1e3 * state.batch_s:.0f} ms per batch")
    for place in state.places:
        text = f"{place.node} [{place.start}, {place.stop})"
        if place.batch_s:
            text += f" {1e3 * place.batch_s:.0f} ms, idle {place.idle_share:.0%}"
        words.append(text)
    return ", ".join(words)


def round_loss(loss: float | None) -> float | None:
    """For a report; None: there is none, or it is not finite."""
    return None if loss is None else round(loss, 4)


def make_report(central: TrainCentral | None, model: str, layers: int) -> dict[str, Any]:
    """The figures that --json prints. central None: the training had ended before this start."""
    report: dict[str, Any] = {"model": model, "layers": layers}
    if central is None:
        return report
    state, results = central.view, central.driver.progress.results
    timeline = list(central.driver.progress.timeline)
    return {
        **report,
        "batches": state.batches,
        "loss": round_loss(state.loss),
        "batch_ms": round(1e3 * state.batch_s, 2),
        "stages": [
            {
                "node": place.node,
                "layers": [place.start, place.stop],
                "batch_ms": round(1e3 * place.batch_s, 2),
                "idle_share": round(place.idle_share, 3),
            }
            for place in state.places
        ],
        "chain_every": state.chain_every,
        "global_every": state.global_every,
        "terms": state.term,
        "failures": state.failures,
        "timeline": [
            {
                "after_s": round(entry.wall_s - timeline[0].wall_s, 3),
                "batch": entry.batch,
                "kind": entry.kind,
                "text": entry.text,
            }
            for entry in timeline
        ],
        # By batch; null: done before this process started, or the report of it was lost.
        "losses": [
            round_loss(results[batch].loss) if batch in results else None
            for batch in range(max(results, default=-1) + 1)
        ],
    }
