"""At least one message of every kind, and a strategy for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ddnn.core.device import DeviceProfile
from ddnn.core.pace import ALL
from ddnn.core.plan import MAX_PIECES
from ddnn.core.site_time import MAX_EPOCH, MAX_TIME_S
from ddnn.protocol.messages import (
    MAX_COUNT,
    MAX_PLANS,
    Answer,
    AnswerAck,
    Answered,
    Assignment,
    Backlog,
    Escalate,
    Features,
    PaceCommand,
    Result,
    Scores,
    Shortfall,
    Stats,
    Status,
    Task,
    Tensor,
    Thresholds,
    TimeReply,
    TimeRequest,
    WorkerOffer,
)
from ddnn.protocol.node_messages import CloudReach, Latest, NameClaim
from ddnn.protocol.offload_state import (
    Alternative,
    Alternatives,
    Axis,
    OffloadState,
    PieceGroup,
    WorkerState,
)
from ddnn.protocol.topics import AnyMessage, Kind
from tests.unit.protocol import record_messages_made as record
from tests.unit.protocol import rollout_messages_made as rollout
from tests.unit.protocol import train_messages_made as train

COUNTS = st.integers(0, MAX_COUNT)
IDS = st.from_regex(r"[a-z0-9-]{1,64}\Z", fullmatch=True)
BUNDLES = st.text(max_size=16)
TEXTS = st.text(max_size=40)
EPOCHS = st.integers(0, MAX_EPOCH)
SECONDS = st.floats(-1e12, 1e12)
REALS = st.floats(allow_nan=False, allow_infinity=False)
LABELS = st.integers(-1, 2**16 - 1)
MASKS = st.integers(0, 2**62 - 1)
SHAPES = st.lists(st.integers(0, 4), max_size=5).map(tuple)
ROLES = st.sampled_from(["device", "edge", "cloud", "store", "worker"])
EXITS = st.sampled_from(["device", "local", "edge", "cloud"])
SHARES = st.floats(0, 1)
SPENT = st.tuples(COUNTS, COUNTS)
PIECES = st.integers(0, MAX_PIECES - 1)
FLOATS_32 = st.floats(width=32)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(SHAPES)
    kind = draw(st.sampled_from(["float32", "float16", "uint8", "bits"]))
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).normal(0, 50, shape)
    if kind == "bits":
        return Tensor.of(values.astype(np.float32), bits=True)
    if kind == "uint8":
        return Tensor.of(np.abs(values).astype(np.uint8))
    return Tensor.of(values.astype(kind))


NAMED_TENSORS = st.dictionaries(st.text(max_size=64), tensors(), min_size=1, max_size=3)
RATES = st.floats(0, exclude_min=True, allow_infinity=False)
PROFILES = st.builds(
    DeviceProfile,
    name=IDS,
    flops_per_s=RATES,
    memory_bytes=st.none() | st.integers(1, MAX_COUNT),
    uplink_bits_per_s=st.none() | RATES,
    downlink_bits_per_s=st.none() | RATES,
    outage_probability=st.none() | st.floats(0, 1, exclude_max=True),
)
ANSWERS = st.builds(
    Answer,
    sample=COUNTS,
    node=IDS,
    exit=EXITS,
    label=LABELS,
    probabilities=st.lists(REALS, max_size=4),
    eta=REALS,
    members=st.lists(IDS, max_size=4),
    missing=st.lists(IDS, max_size=4),
    quality=st.sampled_from(["full", "degraded"]),
    expected_accuracy=st.none() | REALS,
    bundle=BUNDLES,
    captured_at_s=SECONDS,
    answered_at_s=SECONDS,
    latency_s=SECONDS,
    late=st.booleans(),
    truth=st.none() | LABELS,
    payload_bytes=COUNTS,
    wire_bytes=COUNTS,
    votes=st.dictionaries(IDS, st.tuples(LABELS, SHARES), max_size=3),
    exit_trace=st.lists(st.tuples(EXITS, LABELS, REALS), max_size=3),
)
SHORTFALLS = st.builds(
    Shortfall,
    missing=st.lists(IDS, max_size=3),
    accuracy=st.dictionaries(EXITS, SHARES, max_size=4),
)
_FEATURES = st.builds(
    Features,
    v=st.just(1),
    sample=COUNTS,
    bundle=BUNDLES,
    members=MASKS,
    captured_at_s=SECONDS,
    parts=st.lists(tensors(), max_size=3).map(tuple),
    label=st.none() | LABELS,
    traffic=SPENT,
    shortfall=st.none() | SHORTFALLS,
)
_SCORES = st.builds(
    Scores,
    v=st.just(1),
    sample=COUNTS,
    bundle=BUNDLES,
    members=MASKS,
    captured_at_s=SECONDS,
    scores=tensors(),
    label=st.none() | LABELS,
    traffic=SPENT,
    shortfall=st.none() | SHORTFALLS,
)
STRATEGIES: dict[Kind, st.SearchStrategy[Any]] = {
    **train.make_strategies(COUNTS, IDS, TEXTS, PROFILES),
    **record.make_strategies(COUNTS, IDS, TEXTS),
    **rollout.make_strategies(COUNTS, TEXTS),
    Kind.STATUS: st.builds(
        Status,
        role=ROLES,
        session=COUNTS,
        state=st.sampled_from(["online", "stopped", "lost"]),
        bundle=BUNDLES,
        version=TEXTS,
        instance=COUNTS,
    ),
    Kind.LATEST: st.builds(
        Latest, label=LABELS, exit=EXITS, confidence_percent=st.integers(0, 100)
    ),
    Kind.REACH: st.builds(CloudReach, cloud=st.booleans()),
    Kind.CLAIM: st.builds(NameClaim, instance=COUNTS, age_s=SECONDS),
    Kind.STATS: st.builds(
        Stats,
        role=ROLES,
        uptime_s=SECONDS,
        memory_bytes=COUNTS,
        counts=st.dictionaries(TEXTS, COUNTS, max_size=3),
        gauges=st.dictionaries(TEXTS, REALS, max_size=3),
    ),
    Kind.SCORES: _SCORES,
    Kind.FEATURES: _FEATURES,
    Kind.ESCALATE: st.builds(
        Escalate,
        v=st.just(1),
        sample=COUNTS,
        bundle=BUNDLES,
        tier=st.sampled_from(["local", "edge"]),
    ),
    Kind.UPLINK: _FEATURES,
    Kind.VERDICT: _SCORES,
    Kind.ANSWER: ANSWERS,
    Kind.BACKLOG: st.lists(ANSWERS, max_size=3).map(Backlog),
    Kind.ACK: st.lists(COUNTS, max_size=5).map(AnswerAck),
    Kind.THRESHOLDS: st.builds(
        Thresholds,
        bundle=BUNDLES,
        thresholds=st.dictionaries(EXITS, SHARES, max_size=4),
        revision=COUNTS,
    ),
    Kind.ANSWERED: st.builds(
        Answered, v=st.just(1), samples=st.lists(COUNTS, min_size=1, max_size=5)
    ),
    Kind.PACE: st.builds(PaceCommand, share=st.integers(1, ALL), since=COUNTS),
    Kind.TIME_REQUEST: st.builds(
        TimeRequest, asked_at_s=SECONDS, epoch=EPOCHS, known=st.booleans()
    ),
    Kind.TIME_REPLY: st.builds(
        TimeReply, echo_s=SECONDS, replied_at_s=st.floats(0, MAX_TIME_S), epoch=EPOCHS
    ),
    Kind.TASK: st.builds(Task, v=st.just(1), plan=BUNDLES, job=COUNTS, inputs=NAMED_TENSORS),
    Kind.RESULT: st.builds(
        Result, v=st.just(1), plan=BUNDLES, job=COUNTS, piece=PIECES, outputs=NAMED_TENSORS
    ),
    Kind.OFFER: st.builds(
        WorkerOffer,
        holds=st.dictionaries(BUNDLES, st.lists(PIECES, max_size=4), max_size=MAX_PLANS),
        profile=st.none() | PROFILES,
    ),
    Kind.ASSIGN: st.builds(
        Assignment,
        plans=st.dictionaries(
            BUNDLES,
            st.dictionaries(IDS, st.lists(PIECES, max_size=4), max_size=3),
            max_size=MAX_PLANS,
        ),
    ),
    Kind.OFFLOAD: st.builds(
        OffloadState,
        plan=BUNDLES,
        room=BUNDLES,
        title=BUNDLES,
        description=BUNDLES,
        pieces=COUNTS,
        live_pieces=COUNTS,
        enough=st.booleans(),
        spare_workers=COUNTS,
        workers=st.dictionaries(
            IDS,
            st.builds(
                WorkerState,
                state=st.sampled_from(["live", "loading", "stalled", "lost", "faulty"]),
                pieces=st.lists(PIECES, max_size=4),
                planned=st.booleans(),
                answered=COUNTS,
                used=COUNTS,
                late=COUNTS,
                missed=COUNTS,
                latency_ms=st.floats(0, 1e9),
                outage=SHARES,
                observed_s=SECONDS,
            ),
            max_size=3,
        ),
        groups=st.lists(st.builds(PieceGroup, name=BUNDLES, first=COUNTS, end=COUNTS), max_size=3),
        combined=COUNTS,
        computed_here=COUNTS,
        given_up=COUNTS,
        missing=st.lists(IDS, max_size=3),
        gather_ms=st.floats(0, 1e9),
        combine_ms=st.floats(0, 1e9),
        counts=st.dictionaries(BUNDLES, COUNTS, max_size=3),
        combined_partly=COUNTS,
        sources=st.lists(BUNDLES, max_size=3),
        accuracy=st.dictionaries(EXITS, SHARES, max_size=4),
        alternatives=st.none()
        | st.builds(
            Alternatives,
            title=BUNDLES,
            axes=st.lists(
                st.builds(Axis, name=BUNDLES, unit=st.sampled_from(["s", "share"])), max_size=2
            ),
            points=st.lists(
                st.builds(
                    Alternative,
                    label=TEXTS,
                    values=st.lists(REALS, max_size=2),
                    current=st.booleans(),
                ),
                max_size=2,
            ),
        ),
    ),
}


def answer(sample: int = 5, **changes: Any) -> Answer:
    fields: dict[str, Any] = {
        "sample": sample,
        "node": "edge",
        "exit": "local",
        "label": 1,
        "probabilities": [0.25, 0.75],
        "eta": 0.8,
        "members": ["cam1"],
        "missing": ["cam2"],
        "quality": "degraded",
        "expected_accuracy": 0.5,
        "bundle": "b1",
        "captured_at_s": 1.5,
        "answered_at_s": 2.5,
        "latency_s": 1.0,
        "truth": -1,
        **changes,
    }
    return Answer(**fields)


_THREE = Tensor.of(np.array([1, -2, 0.5], np.float32))
_BITS = Tensor.of(np.linspace(-1, 1, 20, dtype=np.float32).reshape(2, 2, 5), bits=True)
_SHORTFALL = Shortfall(["worker3", "worker4"], {"edge": 0.5})
SAMPLES: dict[Kind, AnyMessage] = {
    **train.SAMPLES,
    **record.SAMPLES,
    **rollout.SAMPLES,
    Kind.STATUS: Status("edge", 7, "online", "b1", "0.1.0", 2**53),
    Kind.CLAIM: NameClaim(2**53, 12.5),
    Kind.LATEST: Latest(2, "edge", 75),
    Kind.REACH: CloudReach(True),
    Kind.STATS: Stats("cloud", 12.5, 1 << 20, {"answers": 3}, {"queue": 0.5}),
    Kind.SCORES: Scores(1, 300, "b1", 3, 1.75e9, _THREE, 2, (12, 80), _SHORTFALL),
    Kind.FEATURES: Features(1, 300, "b1", 3, 1.75e9, (_BITS, _BITS), None, (12, 80)),
    Kind.ESCALATE: Escalate(1, 70000, "b1", "local"),
    Kind.UPLINK: Features(1, 1 << 40, "b1", 2**62 - 1, -3.0, (_BITS,), -1),
    Kind.VERDICT: Scores(1, 0, "", 0, 0.0, Tensor.of(np.array([1], np.float16))),
    Kind.ANSWER: answer(votes={"cam1": (1, 0.75)}, exit_trace=[("local", 1, 0.8)]),
    Kind.BACKLOG: Backlog([answer(1, late=True), answer(2, expected_accuracy=None)]),
    Kind.ACK: AnswerAck([1, 2, 1 << 50]),
    Kind.THRESHOLDS: Thresholds("b1", {"local": 0.25, "edge": 1.0}, 7),
    Kind.ANSWERED: Answered(1, [3, 70000, 1 << 50]),
    Kind.PACE: PaceCommand(512, 1 << 42),
    Kind.TIME_REQUEST: TimeRequest(1.75e9, 3, True),
    Kind.TIME_REPLY: TimeReply(1.75e9, 1.75e9 + 0.5, 3),
    Kind.TASK: Task(1, "p1", 1 << 42, {"x": _THREE, "mask": _BITS}),
    Kind.RESULT: Result(1, "p1", 1 << 42, 5, {"z": _THREE}),
    Kind.OFFER: WorkerOffer(
        {"p1": [0, 3], "p2": []}, DeviceProfile("worker1", 2.5e9, 1 << 30, 1e6, 2e7, 0.125)
    ),
    Kind.ASSIGN: Assignment({"p1": {"worker1": [0], "worker2": [1, 2]}, "p2": {}}),
    Kind.OFFLOAD: OffloadState(
        "p1",
        "coding",
        "layer conv1",
        "Any 2 of 3 shards suffice.",
        3,
        3,
        True,
        1,
        {"worker1": WorkerState("live", [0], True, 9, 8, 1, 0, 0.75)},
        [PieceGroup("data", 0, 2), PieceGroup("parity", 2, 3)],
        9,
        1,
        0,
        ["worker2"],
        0.5,
        0.02,
        {"contradictions": 2},
        1,
        ["worker1", ""],
        {"edge": 0.75},
        Alternatives(
            "other plans",
            [Axis("latency", "s"), Axis("P(full)", "share")],
            [Alternative("2 x a", [0.5, 0.99], current=True), Alternative("1 x b", [0.25, 0.9])],
        ),
    ),
}
