"""Invalid, repeated, late and too many messages must not change what the edge answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddnn.protocol.machine import (
    Compute,
    Computed,
    Effect,
    Event,
    Tick,
)
from ddnn.protocol.messages import MAX_COUNT, Tensor
from tests.unit.exits.driven_edge import DrivenEdge
from tests.unit.exits.exit_builders import (
    DEVICE_FEATURES,
    EDGE_FEATURES,
    EPOCH_S,
    SURE,
    UNSURE,
    list_answers,
    make_bits,
    make_escalate,
    make_features,
    make_manifest,
    make_scores,
    make_tensor,
)


def make_hostile_scores() -> dict[str, Event]:
    nan, inf = float("nan"), float("inf")

    def change(**changes: Any) -> Event:
        fields: dict[str, Any] = {"node": "cam3", "sample": 5, "members": 4, "time_s": 1.0}
        return make_scores(**{**fields, **changes})

    return {
        "another bundle": change(bundle="b2"),
        "three too few": change(tensor=make_tensor()),
        "too few": change(tensor=make_tensor(1, 2)),
        "too many": change(tensor=make_tensor(1, 2, 3, 4)),
        "another rank": change(tensor=Tensor.of(np.zeros((3, 1), np.float32))),
        "rank 0": change(tensor=Tensor.of(np.float32(3).reshape(()))),
        "NaN": change(values=(nan, 0, 0)),
        "infinite": change(values=(inf, 0, 0)),
        "minus infinite": change(values=(0, -inf, 0)),
        "enormous": change(values=(3e38, 0, 0)),
        "another type": change(tensor=make_tensor(1, 2, 3, dtype=np.float16)),
        "bytes": change(tensor=make_tensor(1, 2, 3, dtype=np.uint8)),
        "bits": change(tensor=Tensor.of(np.ones(3, np.float32), bits=True)),
        "the mask of another": change(members=2),
        "the mask of all": change(members=7),
        "no mask": change(members=0),
        "a mask beyond": change(members=8 | 4),
        "a stranger": change(node="cam9"),
        "an edge": change(node="edge2"),
        "the cloud": change(node="cloud"),
        "a replay": change(node="cam1", members=1, values=(0, 0, 30)),
    }


@pytest.mark.parametrize("name", make_hostile_scores())
def test_bad_scores_are_counted_and_change_nothing(edge: DrivenEdge, name: str) -> None:
    def count_refused() -> int:
        names = ("scores_refused", "scores_late", "wrong_bundle", "expired")
        return sum(edge.counts.get(n, 0) for n in names)

    edge.handle_scores(1.0, 5, SURE, SURE)
    before = count_refused()
    assert edge.handle(1.01, make_hostile_scores()[name]) == []
    assert count_refused() > before
    (answer,) = list_answers(edge.handle_scores(1.02, 5, None, None, UNSURE))
    clean = DrivenEdge(edge.manifest)
    clean.handle_scores(1.0, 5, SURE, SURE)
    assert list_answers(clean.handle_scores(1.02, 5, None, None, UNSURE)) == [answer]


def make_hostile_features() -> dict[str, Event]:
    def change(**changes: Any) -> Event:
        fields: dict[str, Any] = {"node": "cam3", "sample": 5, "members": 4}
        return make_features(**{**fields, **changes})

    return {
        "another bundle": change(bundle="b2"),
        "no parts": change(parts=()),
        "two parts": change(parts=(make_bits(), make_bits())),
        "another shape": change(parts=(make_bits((2, 3, 2)),)),
        "flat": change(parts=(make_bits((12,)),)),
        "floats": change(parts=(Tensor.of(np.ones(DEVICE_FEATURES, np.float32)),)),
        "the mask of another": change(members=1),
        "the mask of all": change(members=7),
        "no mask": change(members=0),
        "a stranger": change(node="cam9"),
        "a replay": change(node="cam1", members=1, parts=(make_bits(value=-1),)),
    }


@pytest.mark.parametrize("name", make_hostile_features())
@pytest.mark.parametrize("letter", ["c", "e"])
def test_bad_features_are_counted_and_never_fused(name: str, letter: Any) -> None:
    def run(*events: Event) -> tuple[list[Effect], dict[str, int]]:
        driven = DrivenEdge(make_manifest(letter, 3))
        driven.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
        driven.handle_features(1.05, 5, 1, 2)
        assert driven.handle(1.06, *events) == []
        return driven.handle_features(1.07, 5, 3), driven.counts

    dirty, counts = run(make_hostile_features()[name])
    clean, _ = run()
    assert counts.get("features_refused", 0) + counts.get("features_late", 0) == 1
    assert len(clean) == len(dirty) == 1
    if isinstance(clean[0], Compute):
        np.testing.assert_array_equal(clean[0].inputs["features"], dirty[0].inputs["features"])
    else:
        assert clean == dirty


@pytest.mark.parametrize(
    "fields",
    [
        {"bundle": "b2"},
        {"values": (float("nan"), 0, 0)},
        {"values": (float("inf"), 0, 0)},
        {"values": (3e38, -3e38, 0)},
        {"tensor": make_tensor(1, 2)},
        {"tensor": make_tensor(255, 0, 1, dtype=np.uint8)},
        {"tensor": make_tensor(1, 2, 3, dtype=np.float16)},
        {"tensor": Tensor.of(np.ones(3, np.float32), bits=True)},
        {"sample": 6},
    ],
    ids=lambda fields: f"{next(iter(fields))}",
)
def test_bad_verdicts_are_counted_and_change_nothing(
    edge: DrivenEdge, fields: dict[str, Any]
) -> None:
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    assert edge.handle_verdict(1.1, **{"sample": 5, **fields}) == []
    assert edge.counts.get("verdict_refused", 0) + edge.counts.get("verdict_late", 0) == 1
    assert [a.exit for a in list_answers(edge.handle_verdict(1.2, 5))] == ["cloud"]


def test_a_verdict_before_the_request_is_refused(edge: DrivenEdge) -> None:
    edge.handle_scores(1.0, 5, SURE, SURE)
    assert edge.handle_verdict(1.01, 5) == []
    (answer,) = list_answers(edge.handle_scores(1.02, 5, None, None, SURE))
    assert answer.exit == "local"


@pytest.mark.parametrize("scheme", ["MP", "AP", "CC"])
def test_the_largest_accepted_scores_give_an_answer_that_can_be_encoded(scheme: Any) -> None:
    edge = DrivenEdge(make_manifest("c", 3, schemes=(scheme, "CC")))
    effects = edge.handle_scores(1.0, 5, *[(1e9, -1e9, 1e9)] * 3)
    if not list_answers(effects):
        effects = edge.handle_verdict(1.1, 5, (-1e9, 1e9, 1e9))
    (answer,) = list_answers(effects)
    assert np.isfinite(answer.eta)  # and DrivenEdge.tell has decoded it


def test_numbers_of_a_peer_cannot_make_the_answer_invalid() -> None:
    """Two edges report a traffic of 2**53 bytes each."""
    edge = DrivenEdge(make_manifest("f", 4))
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE, UNSURE)
    traffic = (MAX_COUNT, MAX_COUNT)
    edge.handle(1.01, make_scores("edge2", 5, UNSURE, members=0b1100, traffic=traffic))
    (compute,) = edge.handle_features(1.02, 5, 1, 2)
    assert isinstance(compute, Compute)
    out = {"scores": np.float32(SURE), "features": np.ones(EDGE_FEATURES, np.float32)}
    (answer,) = list_answers(edge.handle(1.03, Computed(compute.job, out)))
    assert answer.payload_bytes == MAX_COUNT


def test_a_mask_is_reduced_to_the_devices_of_its_edge(edge: DrivenEdge) -> None:
    lead = DrivenEdge(make_manifest("f", 4))
    lead.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE, UNSURE)
    lead.handle(1.01, make_scores("edge2", 5, SURE, members=2**61 | 0b0111))
    answers = list_answers(lead.handle(1.3, Tick()))
    assert [a.members for a in answers] == [["cam3"]]


@pytest.mark.parametrize("captured_at_s", [-1e12, 0.0, 9e11])
def test_a_clock_that_is_far_off_is_corrected_by_its_offset(
    edge: DrivenEdge, captured_at_s: float
) -> None:
    for n in range(3):
        event = make_scores("cam1", n, SURE, members=1, time_s=captured_at_s - EPOCH_S + n)
        edge.handle(1.0 + n, event)
        (answer,) = list_answers(edge.handle_scores(1.0 + n, n, None, SURE, SURE))
        assert answer.latency_s == pytest.approx(0, abs=1e-3)


def test_messages_that_were_delayed_too_long_are_not_answered(edge: DrivenEdge) -> None:
    edge.handle_scores(0.5, 0, SURE, SURE, SURE)
    old = [make_scores("cam1", n, SURE, members=1, time_s=1.0 + n) for n in range(1, 9)]
    effects = edge.handle(10.0, *old)
    assert list_answers(effects) == []
    assert edge.counts["expired"] == 8


def test_repeated_scores_long_after_the_answer_give_no_second_one(edge: DrivenEdge) -> None:
    events = [make_scores(f"cam{i + 1}", 5, SURE, members=1 << i, time_s=1.0) for i in range(3)]
    assert len(list_answers(edge.handle(1.0, *events))) == 1
    for time_s in (1.01, 1.5, 60.0, 500.0):
        assert list_answers(edge.handle(time_s, *events, Tick())) == []


def test_a_flood_of_samples_takes_bounded_memory(edge: DrivenEdge) -> None:
    for n in range(3000):
        edge.handle(1.0, make_scores("cam1", 1000 + n, SURE, members=1, time_s=1.0))
        edge.handle(1.0, make_features("cam1", 1000 + n, members=1))
        edge.handle(1.0, make_escalate(1_000_000 + n))
    edge_exit = edge.machine.versions.machine
    exits, fusion = edge_exit.exits, edge_exit.fusion
    assert exits is not None
    assert len(exits._decisions) <= 1024
    assert len(fusion._collector) + len(fusion._running) <= 1024
    assert len(fusion._collector._jobs._closed) <= 8192
    assert edge.counts["evicted"] > 0


def test_an_escalation_by_a_stranger_only_opens_a_collection_that_expires(edge: DrivenEdge) -> None:
    assert (
        edge.handle(1.0, make_escalate(5), make_escalate(5, "edge"), make_escalate(5, bundle="b2"))
        == []
    )
    assert edge.handle(2.0, Tick()) == []
    assert edge.handle(2.0, make_escalate(5)) == []
    assert len(edge.machine.versions.machine.fusion._collector) == 0
