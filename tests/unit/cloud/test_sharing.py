"""How many more workers may vanish: never more than is so, whatever they hold."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from cloud_app.live import SharingView
from ddnn.protocol.messages import OffloadState, WorkerState
from tests.live_made import shared_among

LIVE: Literal["live"] = "live"


def view(told: OffloadState) -> SharingView:
    return SharingView("home", "edge", 0.0, told)


@st.composite
def plans(draw: Any) -> OffloadState:
    """Any k of n shards suffice; the workers hold different ones, as many as they can bear."""
    held = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6).filter(any))
    n = sum(held)
    k = draw(st.integers(1, n))
    states = draw(st.lists(st.sampled_from([LIVE, "lost"]), min_size=len(held), max_size=len(held)))
    first, workers = 0, {}
    for i, (number, state) in enumerate(zip(held, states, strict=True)):
        workers[f"worker{i}"] = WorkerState(state, list(range(first, first + number)))
        first += number
    live = sum(len(w.pieces) for w in workers.values() if w.state == LIVE)
    return shared_among(n=n, k=k, workers=workers, live_pieces=live, decodable=live >= k)


@given(plans())
def test_so_many_may_go_whoever_they_are_and_not_one_more(told: OffloadState) -> None:
    spare = view(told).to_spare
    held = [len(w.pieces) for w in told.workers.values() if w.state == LIVE]

    def suffice(without: int) -> bool:
        return all(told.live_pieces - sum(gone) >= told.k for gone in combinations(held, without))

    if not told.decodable:
        assert spare == 0
        return
    assert suffice(spare)
    assert spare == len(held) or not suffice(spare + 1)


def test_of_replicas_only_the_copies_may_go() -> None:
    """Twelve shards of six blocks: two that hold the same block may be the next to go."""
    fields = {"redundancy": "replicate", "n": 12, "k": 6}
    workers = {f"worker{i}": WorkerState(LIVE, [i]) for i in range(12)}
    assert view(shared_among(workers=workers, live_pieces=12, **fields)).to_spare == 1
    workers["worker0"] = WorkerState("lost", [0])
    assert view(shared_among(workers=workers, live_pieces=11, **fields)).to_spare == 0


def test_a_stand_in_and_the_one_it_stands_in_for_count_once() -> None:
    workers = {f"worker{i}": WorkerState(LIVE, [i]) for i in range(1, 6)}
    workers |= {"worker0": WorkerState("lost", [0]), "spare": WorkerState(LIVE, [0], planned=False)}
    told = view(shared_among(workers=workers, live_pieces=6))
    assert (told.to_spare, told.planned, told.states) == (2, 6, {"live": 6, "lost": 1})
