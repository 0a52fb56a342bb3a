"""Messages of nodes that train together, and a strategy for each kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ddnn.core.device import DeviceProfile
from ddnn.protocol.topics import AnyMessage, Kind
from ddnn.protocol.train_messages import (
    MAX_LAYERS,
    TrainAssignment,
    TrainCommand,
    TrainEntry,
    TrainFetch,
    TrainFlow,
    TrainOffer,
    TrainPart,
    TrainPlace,
    TrainReply,
    TrainReport,
    TrainResult,
    TrainState,
)

Strategy = st.SearchStrategy[Any]


def make_strategies(
    counts: Strategy, ids: Strategy, texts: Strategy, profiles: Strategy
) -> dict[Kind, Strategy]:
    layers, data = st.integers(0, MAX_LAYERS - 1), st.binary(max_size=20)
    actions = st.sampled_from(["probe", "halt", "hold", "start", "resend", "release"])
    durations = st.floats(0, 1e9)
    assignments = st.builds(
        TrainAssignment,
        nodes=st.lists(ids, min_size=1, max_size=3),
        ranges=st.lists(st.tuples(layers, layers), min_size=1, max_size=3),
        version=counts,
        batches=counts,
        round_batches=counts,
        step_batches=st.integers(1, 65536),
        sources=st.lists(st.tuples(layers, ids, counts, counts), max_size=3),
        aggregate_every=counts,
        delay=counts,
        chain_every=counts,
        global_every=counts,
        consistent=st.booleans(),
        network=texts,
    )
    copy = {"layer": layers, "term": counts, "version": counts, "offset": counts}
    return {
        Kind.TRAIN_FLOW: st.builds(
            TrainFlow,
            v=st.just(1),
            sender=ids,
            way=st.sampled_from(["forward", "backward", "labels"]),
            term=counts,
            batch=counts,
            offset=counts,
            total=counts,
            data=data,
        ),
        Kind.TRAIN_FETCH: st.builds(TrainFetch, v=st.just(1), sender=ids, length=counts, **copy),
        Kind.TRAIN_PART: st.builds(
            TrainPart, v=st.just(1), sender=ids, total=counts, data=data, **copy
        ),
        Kind.TRAIN_OFFER: st.builds(
            TrainOffer,
            network=texts,
            incarnation=counts,
            leaving=st.booleans(),
            profile=st.none() | profiles,
        ),
        Kind.TRAIN_COMMAND: st.builds(
            TrainCommand,
            sender=ids,
            run=texts,
            term=counts,
            action=actions,
            number=counts,
            assignment=st.none() | assignments,
        ),
        Kind.TRAIN_REPLY: st.builds(
            TrainReply,
            sender=ids,
            run=texts,
            term=counts,
            answers=actions,
            number=counts,
            incarnation=counts,
            ok=st.booleans(),
            error=texts,
            copies=st.lists(st.tuples(layers, counts, counts, st.integers(0, 2)), max_size=3),
        ),
        Kind.TRAIN_REPORT: st.builds(
            TrainReport,
            sender=ids,
            term=counts,
            backwards=counts,
            forward_s=durations,
            backward_s=durations,
            rate_bytes_per_s=st.floats(0, 1e15),
            results=st.lists(
                st.builds(
                    TrainResult,
                    batch=counts,
                    loss=st.floats(allow_nan=False, allow_infinity=False),
                    correct=counts,
                    samples=counts,
                ),
                max_size=3,
            ),
        ),
        Kind.TRAIN_STATE: st.builds(
            TrainState,
            run=texts,
            state=texts,
            term=counts,
            batches=counts,
            end=counts,
            loss=st.none() | durations,
            batch_s=durations,
            places=st.lists(st.builds(TrainPlace, node=ids, start=layers, stop=layers), max_size=3),
            timeline=st.lists(
                st.builds(TrainEntry, at_s=durations, batch=counts, kind=texts, text=texts),
                max_size=3,
            ),
        ),
    }


SAMPLES: dict[Kind, AnyMessage] = {
    Kind.TRAIN_FLOW: TrainFlow(1, "worker1", "forward", 3, 70000, 0, 3, b"abc"),
    Kind.TRAIN_FETCH: TrainFetch(1, "worker2", 4, 3, 100, 0, 1 << 20),
    Kind.TRAIN_PART: TrainPart(1, "worker1", b"abc", 4, 3, 100, 0, 3),
    Kind.TRAIN_OFFER: TrainOffer("mlp", 7, False, DeviceProfile("worker1", 2.5e9)),
    Kind.TRAIN_COMMAND: TrainCommand(
        "edge",
        "run1",
        3,
        "hold",
        9,
        TrainAssignment(["edge", "worker1"], [(0, 3), (3, 5)], 40, 200, 0, 1, [(4, "edge", 2, 40)]),
    ),
    Kind.TRAIN_REPLY: TrainReply(
        "worker1", "run1", 3, "halt", 9, 7, False, "no memory", [(4, 2, 40, 1)]
    ),
    Kind.TRAIN_REPORT: TrainReport(
        "worker1", 3, 41, 0.25, 0.5, 1e6, [TrainResult(40, 0.75, 9, 16)]
    ),
    Kind.TRAIN_STATE: TrainState(
        "run1",
        "RUNNING",
        3,
        41,
        200,
        41,
        40,
        10,
        40,
        0.75,
        0.5,
        0.25,
        1,
        2,
        [TrainPlace("edge", 0, 3, 0.2, 0.2), TrainPlace("worker1", 3, 5, 0.25, 0.0)],
        [TrainEntry(1.7e9, 12, "restart", "worker2 is lost")],
    ),
}
