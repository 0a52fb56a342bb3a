"""The edge's machine (exits, fusion, outbox), driven by hand in virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exit_builders import (
    BUNDLE,
    DEVICE_FEATURES,
    EDGE_FEATURES,
    EPOCH_S,
    SITE,
    SURE,
    TIMING,
    UNSURE,
    answers_in,
    at,
    bits,
    escalate,
    features_from,
    manifest_of,
    presence,
    published,
    scores_from,
    vector,
)

from ddnn.exits.cost import communication_bytes
from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.manifest import Manifest, judge
from ddnn.exits.scores import ScoreFormat
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Event,
    Publish,
    Received,
    Tick,
)
from ddnn.protocol.messages import MAX_COUNT, Status, Tensor
from ddnn.protocol.topics import Kind, Topic

ALL = 0b111


class Driven:
    """An edge node with its people online at 0 s; `tell` gives events their time."""

    def __init__(self, manifest: Manifest, node: str = "edge", *, cloud: bool = True) -> None:
        self.manifest = manifest
        self.machine = EdgeNode(SITE, node, BUNDLE, manifest, TIMING)
        self.tell(0, Connected())
        hierarchy = manifest.hierarchy
        present = [*hierarchy.devices, *(group.id for group in hierarchy.edges)]
        for name in (*present, *(["cloud"] if cloud else [])):
            self.tell(0, presence(name))

    def tell(self, time_s: float, *events: Event) -> list[Effect]:
        effects = [e for event in events for e in self.machine.handle(event, at(time_s))]
        for e in effects:
            if isinstance(e, Publish):  # whatever is sent can be read
                assert decode(e.topic.kind, encode(e.message)) == e.message
        return effects

    def scores(self, time_s: float, sample: int, *values: Any) -> list[Effect]:
        """cam1, cam2, … report; None stays silent."""
        return self.tell(
            time_s,
            *(
                scores_from(f"cam{i + 1}", sample, v, members=1 << i, time_s=time_s, wire_bytes=70)
                for i, v in enumerate(values)
                if v is not None
            ),
        )

    def features(self, time_s: float, sample: int, *cams: int, shape=None) -> list[Effect]:
        parts = (bits(shape or DEVICE_FEATURES),)
        return self.tell(
            time_s,
            *(
                features_from(
                    f"cam{n}", sample, members=1 << n - 1, time_s=time_s, parts=parts, wire_bytes=60
                )
                for n in cams
            ),
        )

    def verdict(self, time_s: float, sample: int, values: Any = SURE, **fields: Any):
        fields = {"members": ALL, "traffic": (6, 180), **fields}
        event = scores_from("edge", sample, values, kind=Kind.VERDICT, time_s=time_s, **fields)
        return self.tell(time_s, event)

    @property
    def counts(self) -> dict[str, int]:
        return self.machine.counts


@pytest.fixture
def edge() -> Driven:
    accuracy = {"7": {"overall": 0.9, "local": 0.8}, "3": {"overall": 0.7, "local": 0.6}}
    return Driven(manifest_of("c", 3, accuracy=accuracy))


def run_edge_section(driven: Driven, effects: list[Effect], time_s: float, scores: Any):
    (compute,) = [e for e in effects if isinstance(e, Compute)]
    out = {
        "scores": np.array(scores, np.float32),
        "features": np.full(EDGE_FEATURES, -1, np.float32),
    }
    return driven.tell(time_s, Computed(compute.job, out))


# ---------------------------------------------------------------- happy paths


def test_a_sure_sample_exits_locally_as_soon_as_all_have_reported(edge: Driven) -> None:
    assert edge.scores(1.0, 5, SURE, UNSURE) == []
    (answer,) = answers_in(edge.scores(1.02, 5, None, None, UNSURE))
    assert (answer.sample, answer.node, answer.exit) == (5, "edge", "local")
    assert (answer.members, answer.missing) == (["cam1", "cam2", "cam3"], [])
    assert (answer.quality, answer.expected_accuracy) == ("full", 0.9)
    assert (answer.label, answer.late, answer.bundle) == (0, False, BUNDLE)
    assert answer.captured_at_s == EPOCH_S + 1.0
    assert answer.latency_s == pytest.approx(0.02)
    fused = np.maximum(np.float32(SURE), np.float32(UNSURE))
    assert answer.probabilities == judge(edge.manifest, "local", fused, ALL).probabilities
    assert answer.payload_bytes == 3 * communication_bytes(3, 1.0, 3, 4) == 36
    assert answer.wire_bytes == 210


def test_an_unsure_sample_goes_to_the_cloud(edge: Driven) -> None:
    effects = edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    assert [(m.sample, m.tier) for m in published(effects, Kind.ESCALATE)] == [(5, "local")]
    assert published(edge.features(1.05, 5, 1, 2), Kind.UPLINK) == []
    (uplink,) = published(edge.features(1.06, 5, 3), Kind.UPLINK)
    assert (uplink.members, len(uplink.parts), uplink.traffic) == (ALL, 3, (6, 180))
    (answer,) = answers_in(edge.verdict(1.1, 5, (0.0, 9.0, 0.0), traffic=uplink.traffic))
    assert (answer.exit, answer.label, answer.quality) == ("cloud", 1, "full")
    assert answer.payload_bytes == 3 * communication_bytes(3, 0.0, 3, 4) == 42
    assert answer.wire_bytes == 390
    assert edge.verdict(1.2, 5) == []
    assert answers_in(edge.tell(9, Tick())) == []


def test_the_parts_go_up_in_the_order_of_the_members(edge: Driven) -> None:
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    values = {1: 1.0, 2: -1.0, 3: 1.0}
    effects = []
    for n in (3, 1, 2):
        part = bits(value=values[n])
        effects += edge.tell(1.05, features_from(f"cam{n}", 5, members=1 << n - 1, parts=(part,)))
    (uplink,) = published(effects, Kind.UPLINK)
    assert uplink.parts == tuple(bits(value=values[n]) for n in (1, 2, 3))


def test_an_edge_exit() -> None:
    edge = Driven(manifest_of("e", 3))
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    effects = edge.features(1.05, 5, 1, 2, 3)
    (compute,) = effects
    assert isinstance(compute, Compute)
    assert compute.section == "edge"
    assert compute.inputs["features"].shape == (2, 2, 9)
    effects = run_edge_section(edge, effects, 1.06, SURE)
    assert published(effects, Kind.SCORES) == []  # they do not leave the process
    (answer,) = answers_in(effects)
    assert (answer.exit, answer.quality, answer.label) == ("edge", "full", 0)
    assert answer.payload_bytes == 42
    assert answer.wire_bytes == 390


def test_from_an_edge_section_on_to_the_cloud() -> None:
    edge = Driven(manifest_of("e", 3))
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    effects = run_edge_section(edge, edge.features(1.05, 5, 1, 2, 3), 1.06, UNSURE)
    assert [m.tier for m in published(effects, Kind.ESCALATE)] == ["edge"]
    (uplink,) = published(effects, Kind.UPLINK)
    assert uplink.parts == (bits(EDGE_FEATURES, -1),)
    (answer,) = answers_in(edge.verdict(1.1, 5))
    assert (answer.exit, answer.payload_bytes, answer.wire_bytes) == ("cloud", 42, 390)


def test_several_edges() -> None:
    manifest = manifest_of("f", 4)
    lead, second = Driven(manifest), Driven(manifest, "edge2")
    effects = lead.scores(1.0, 5, UNSURE, UNSURE, UNSURE, UNSURE)
    assert len(published(effects, Kind.ESCALATE)) == 1
    second.tell(1.01, escalate(5))
    effects = second.features(1.02, 5, 3, 4)
    (other,) = published(run_edge_section(second, effects, 1.03, UNSURE), Kind.SCORES)
    assert (other.members, other.traffic) == (0b1100, (4, 120))
    effects = run_edge_section(lead, lead.features(1.03, 5, 1, 2), 1.04, SURE)
    assert answers_in(effects) == []  # the other edge is awaited
    message = scores_from("edge2", 5, UNSURE, members=other.members, traffic=other.traffic)
    (answer,) = answers_in(lead.tell(1.05, message))
    assert (answer.exit, answer.members) == ("edge", ["cam1", "cam2", "cam3", "cam4"])
    assert answer.payload_bytes == 4 * communication_bytes(3, 0.0, 3, 4)
    assert answer.quality == "full"


def test_an_edge_that_does_not_lead_does_not_answer() -> None:
    second = Driven(manifest_of("f", 4), "edge2")
    assert second.scores(1.0, 5, SURE, SURE, SURE, SURE) == []
    assert second.machine.exits is None


def test_configuration_a() -> None:
    edge = Driven(manifest_of("a", 2))
    raw = Tensor.of(np.zeros((4, 4, 3), np.uint8))
    one = features_from("cam1", 5, members=1, parts=(raw,), time_s=1.0, wire_bytes=100)
    two = features_from("cam2", 5, members=2, parts=(raw,), time_s=1.0, wire_bytes=100)
    assert edge.tell(1.0, one) == []
    (uplink,) = published(edge.tell(1.01, two), Kind.UPLINK)
    assert (len(uplink.parts), uplink.traffic) == (2, (96, 200))
    (answer,) = answers_in(edge.verdict(1.1, 5, members=3, traffic=uplink.traffic))
    assert (answer.exit, answer.payload_bytes) == ("cloud", 96)


@pytest.mark.parametrize("name", ["float16", "uint8"])
def test_scores_in_their_format(name: Any) -> None:
    form = ScoreFormat(name, -20, 20)
    edge = Driven(manifest_of("c", 3, score_format=form))
    effects = []
    for i in range(3):
        tensor = Tensor.of(form.encode(np.array(SURE, np.float32)))
        event = scores_from(f"cam{i + 1}", 5, members=1 << i, tensor=tensor, time_s=1.0)
        effects += edge.tell(1.0, event)
    (answer,) = answers_in(effects)
    assert answer.payload_bytes == 3 * communication_bytes(3, 1.0, 3, 4, form.bytes_per_score)


# ------------------------------------------------------------------ degraded


def test_with_the_cloud_away_the_local_exit_answers_at_once() -> None:
    edge = Driven(manifest_of("c", 3, accuracy={"7": {"local": 0.8}}), cloud=False)
    effects = edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    (answer,) = answers_in(effects)
    assert published(effects, Kind.ESCALATE) == []
    assert (answer.exit, answer.quality, answer.expected_accuracy) == ("local", "degraded", 0.8)


def test_with_the_cloud_away_the_edge_exit_answers() -> None:
    edge = Driven(manifest_of("e", 3), cloud=False)
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    effects = run_edge_section(edge, edge.features(1.05, 5, 1, 2, 3), 1.06, UNSURE)
    (answer,) = answers_in(effects)
    assert (answer.exit, answer.quality) == ("edge", "degraded")


def test_a_cloud_that_dies_meanwhile_is_not_waited_for(edge: Driven) -> None:
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    (answer,) = answers_in(edge.tell(1.2, presence("cloud", "lost")))
    assert (answer.exit, answer.quality) == ("local", "degraded")


def test_a_cloud_that_is_silent_is_waited_for_until_the_edges_deadline(edge: Driven) -> None:
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    assert answers_in(edge.tell(1.69, Tick())) == []
    (answer,) = answers_in(edge.tell(1.0 + TIMING.edge_s, Tick()))
    assert (answer.exit, answer.quality) == ("local", "degraded")
    assert answer.latency_s <= TIMING.deadline_s
    assert answers_in(edge.verdict(1.8, 5)) == []
    assert edge.counts["verdict_late"] == 1


def test_after_two_samples_a_silent_cloud_is_not_waited_for_any_more(edge: Driven) -> None:
    for n in range(2):
        edge.scores(1.0 + n, n, UNSURE, UNSURE, UNSURE)
        edge.tell(1.7 + n, Tick())
    assert len(answers_in(edge.scores(3.0, 2, UNSURE, UNSURE, UNSURE))) == 1
    edge.tell(3.01, scores_from("edge", 77, SURE, members=7, kind=Kind.VERDICT))
    edge.scores(4.0, 3, UNSURE, UNSURE, UNSURE)  # asked once more, to see whether it lives
    edge.verdict(4.05, 3)
    assert answers_in(edge.scores(5.0, 4, UNSURE, UNSURE, UNSURE)) == []
    assert [a.exit for a in answers_in(edge.verdict(5.1, 4))] == ["cloud"]


def test_a_member_that_is_missing_costs_a_window(edge: Driven) -> None:
    edge.scores(1.0, 5, SURE, SURE)
    due_s = edge.machine.deadline_s()
    assert due_s == pytest.approx(1.0 + TIMING.window_s)
    assert edge.tell(due_s - 0.001, Tick()) == []
    (answer,) = answers_in(edge.tell(due_s, Tick()))
    assert (answer.members, answer.missing) == (["cam1", "cam2"], ["cam3"])
    assert (answer.quality, answer.expected_accuracy) == ("degraded", 0.7)
    assert answer.payload_bytes == 24


def test_a_member_that_is_known_to_be_away_costs_nothing(edge: Driven) -> None:
    edge.tell(0.5, presence("cam3", "lost"))
    (answer,) = answers_in(edge.scores(1.0, 5, SURE, SURE))
    assert answer.missing == ["cam3"]


def test_a_member_that_goes_meanwhile_costs_no_more(edge: Driven) -> None:
    edge.scores(1.0, 5, SURE, SURE)
    assert len(answers_in(edge.tell(1.03, presence("cam3", "lost")))) == 1


def test_after_two_windows_a_silent_member_is_not_waited_for(edge: Driven) -> None:
    for n in range(2):
        edge.scores(1.0 + n, n, SURE, SURE)
        edge.tell(1.1 + n, Tick())
    assert len(answers_in(edge.scores(3.0, 2, SURE, SURE))) == 1
    edge.scores(3.05, 2, None, None, SURE)  # it speaks again, within the window
    assert answers_in(edge.scores(4.0, 3, SURE, SURE)) == []


def test_missing_features_cost_a_window_and_the_rest_goes_up(edge: Driven) -> None:
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    edge.features(1.05, 5, 1, 3)
    (uplink,) = published(edge.tell(1.1, Tick()), Kind.UPLINK)
    assert (uplink.members, len(uplink.parts)) == (0b101, 2)
    (answer,) = answers_in(edge.verdict(1.2, 5, members=0b101, traffic=uplink.traffic))
    assert (answer.missing, answer.quality) == (["cam2"], "degraded")
    assert answer.payload_bytes == 3 * 12 + 2 * 2


def test_a_failed_edge_section_ends_in_the_local_answer() -> None:
    edge = Driven(manifest_of("e", 3))
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    (compute,) = edge.features(1.05, 5, 1, 2, 3)
    assert isinstance(compute, Compute)
    assert edge.tell(1.06, Computed(compute.job, None)) == []
    answers = answers_in(edge.tell(1.0 + 2 * TIMING.window_s, Tick()))
    assert [(a.exit, a.quality) for a in answers] == [("local", "degraded")]
    assert edge.counts["section_failed"] == 1


def test_an_edge_section_that_gives_no_numbers_has_failed() -> None:
    edge = Driven(manifest_of("e", 3))
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    effects = edge.features(1.05, 5, 1, 2, 3)
    assert run_edge_section(edge, effects, 1.06, (np.nan, 0, 0)) == []
    assert edge.counts["section_failed"] == 1


def test_the_broker_going_away_does_not_lose_an_open_sample(edge: Driven) -> None:
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    edge.tell(1.1, Disconnected())
    effects = edge.tell(1.7, Tick())
    assert [type(e).__name__ for e in effects] == ["Keep"]


# -------------------------------------------------- what must change nothing


def hostile_scores() -> dict[str, Event]:
    nan, inf = float("nan"), float("inf")

    def one(**changes: Any) -> Event:
        fields: dict[str, Any] = {"node": "cam3", "sample": 5, "members": 4, "time_s": 1.0}
        return scores_from(**{**fields, **changes})

    return {
        "another bundle": one(bundle="b2"),
        "three too few": one(tensor=vector()),
        "too few": one(tensor=vector(1, 2)),
        "too many": one(tensor=vector(1, 2, 3, 4)),
        "another rank": one(tensor=Tensor.of(np.zeros((3, 1), np.float32))),
        "rank 0": one(tensor=Tensor.of(np.float32(3).reshape(()))),
        "NaN": one(values=(nan, 0, 0)),
        "infinite": one(values=(inf, 0, 0)),
        "minus infinite": one(values=(0, -inf, 0)),
        "enormous": one(values=(3e38, 0, 0)),
        "another type": one(tensor=vector(1, 2, 3, dtype=np.float16)),
        "bytes": one(tensor=vector(1, 2, 3, dtype=np.uint8)),
        "bits": one(tensor=Tensor.of(np.ones(3, np.float32), bits=True)),
        "the mask of another": one(members=2),
        "the mask of all": one(members=7),
        "no mask": one(members=0),
        "a mask beyond": one(members=8 | 4),
        "a stranger": one(node="cam9"),
        "an edge": one(node="edge2"),
        "the cloud": one(node="cloud"),
        "a replay": one(node="cam1", members=1, values=(0, 0, 30)),
    }


@pytest.mark.parametrize("name", hostile_scores())
def test_bad_scores_are_counted_and_change_nothing(edge: Driven, name: str) -> None:
    def refused() -> int:
        names = ("scores_refused", "scores_late", "wrong_bundle", "expired")
        return sum(edge.counts.get(n, 0) for n in names)

    edge.scores(1.0, 5, SURE, SURE)
    before = refused()
    assert edge.tell(1.01, hostile_scores()[name]) == []
    assert refused() > before
    (answer,) = answers_in(edge.scores(1.02, 5, None, None, UNSURE))
    clean = Driven(edge.manifest)
    clean.scores(1.0, 5, SURE, SURE)
    assert answers_in(clean.scores(1.02, 5, None, None, UNSURE)) == [answer]


def hostile_features() -> dict[str, Event]:
    def one(**changes: Any) -> Event:
        fields: dict[str, Any] = {"node": "cam3", "sample": 5, "members": 4}
        return features_from(**{**fields, **changes})

    return {
        "another bundle": one(bundle="b2"),
        "no parts": one(parts=()),
        "two parts": one(parts=(bits(), bits())),
        "another shape": one(parts=(bits((2, 3, 2)),)),
        "flat": one(parts=(bits((12,)),)),
        "floats": one(parts=(Tensor.of(np.ones(DEVICE_FEATURES, np.float32)),)),
        "the mask of another": one(members=1),
        "the mask of all": one(members=7),
        "no mask": one(members=0),
        "a stranger": one(node="cam9"),
        "a replay": one(node="cam1", members=1, parts=(bits(value=-1),)),
    }


@pytest.mark.parametrize("name", hostile_features())
@pytest.mark.parametrize("letter", ["c", "e"])
def test_bad_features_are_counted_and_never_fused(name: str, letter: Any) -> None:
    def run(*events: Event) -> tuple[list[Effect], dict[str, int]]:
        driven = Driven(manifest_of(letter, 3))
        driven.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
        driven.features(1.05, 5, 1, 2)
        assert driven.tell(1.06, *events) == []
        return driven.features(1.07, 5, 3), driven.counts

    dirty, counts = run(hostile_features()[name])
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
        {"tensor": vector(1, 2)},
        {"tensor": vector(255, 0, 1, dtype=np.uint8)},
        {"tensor": vector(1, 2, 3, dtype=np.float16)},
        {"tensor": Tensor.of(np.ones(3, np.float32), bits=True)},
        {"sample": 6},
    ],
    ids=lambda fields: f"{next(iter(fields))}",
)
def test_bad_verdicts_are_counted_and_change_nothing(edge: Driven, fields: dict[str, Any]) -> None:
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    assert edge.verdict(1.1, **{"sample": 5, **fields}) == []
    assert edge.counts.get("verdict_refused", 0) + edge.counts.get("verdict_late", 0) == 1
    assert [a.exit for a in answers_in(edge.verdict(1.2, 5))] == ["cloud"]


def test_a_verdict_before_it_was_asked_for_is_none(edge: Driven) -> None:
    edge.scores(1.0, 5, SURE, SURE)
    assert edge.verdict(1.01, 5) == []
    (answer,) = answers_in(edge.scores(1.02, 5, None, None, SURE))
    assert answer.exit == "local"


@pytest.mark.parametrize("scheme", ["MP", "AP", "CC"])
def test_the_largest_scores_that_are_taken_end_in_a_readable_answer(scheme: Any) -> None:
    edge = Driven(manifest_of("c", 3, schemes=(scheme, "CC")))
    effects = edge.scores(1.0, 5, *[(1e9, -1e9, 1e9)] * 3)
    if not answers_in(effects):
        effects = edge.verdict(1.1, 5, (-1e9, 1e9, 1e9))
    (answer,) = answers_in(effects)
    assert np.isfinite(answer.eta)  # and Driven.tell has decoded it


def test_a_peers_numbers_do_not_make_the_answer_unreadable() -> None:
    """Two edges that claim to have spent 2**53 bytes each."""
    edge = Driven(manifest_of("f", 4))
    edge.scores(1.0, 5, UNSURE, UNSURE, UNSURE, UNSURE)
    traffic = (MAX_COUNT, MAX_COUNT)
    edge.tell(1.01, scores_from("edge2", 5, UNSURE, members=0b1100, traffic=traffic))
    (compute,) = edge.features(1.02, 5, 1, 2)
    assert isinstance(compute, Compute)
    out = {"scores": np.float32(SURE), "features": np.ones(EDGE_FEATURES, np.float32)}
    (answer,) = answers_in(edge.tell(1.03, Computed(compute.job, out)))
    assert answer.payload_bytes == MAX_COUNT


def test_a_mask_that_is_not_the_edges_own_is_cut(edge: Driven) -> None:
    lead = Driven(manifest_of("f", 4))
    lead.scores(1.0, 5, UNSURE, UNSURE, UNSURE, UNSURE)
    lead.tell(1.01, scores_from("edge2", 5, SURE, members=2**61 | 0b0111))
    answers = answers_in(lead.tell(1.3, Tick()))
    assert [a.members for a in answers] == [["cam3"]]


@pytest.mark.parametrize("captured_at_s", [-1e12, 0.0, 9e11])
def test_a_clock_that_is_far_off_is_just_an_offset(edge: Driven, captured_at_s: float) -> None:
    for n in range(3):
        event = scores_from("cam1", n, SURE, members=1, time_s=captured_at_s - EPOCH_S + n)
        edge.tell(1.0 + n, event)
        (answer,) = answers_in(edge.scores(1.0 + n, n, None, SURE, SURE))
        assert answer.latency_s == pytest.approx(0, abs=1e-3)


def test_a_queue_that_stood_still_is_not_answered_again(edge: Driven) -> None:
    edge.scores(0.5, 0, SURE, SURE, SURE)
    old = [scores_from("cam1", n, SURE, members=1, time_s=1.0 + n) for n in range(1, 9)]
    effects = edge.tell(10.0, *old)
    assert answers_in(effects) == []
    assert edge.counts["expired"] == 8


def test_a_replay_long_after_the_answer_gives_no_second_one(edge: Driven) -> None:
    events = [scores_from(f"cam{i + 1}", 5, SURE, members=1 << i, time_s=1.0) for i in range(3)]
    assert len(answers_in(edge.tell(1.0, *events))) == 1
    for time_s in (1.01, 1.5, 60.0, 500.0):
        assert answers_in(edge.tell(time_s, *events, Tick())) == []


def test_a_flood_of_samples_takes_bounded_room(edge: Driven) -> None:
    for n in range(3000):
        edge.tell(1.0, scores_from("cam1", 1000 + n, SURE, members=1, time_s=1.0))
        edge.tell(1.0, features_from("cam1", 1000 + n, members=1))
        edge.tell(1.0, escalate(1_000_000 + n))
    exits, fusion = edge.machine.exits, edge.machine.fusion
    assert exits is not None
    assert len(exits._decisions) <= 1024
    assert len(fusion._collector) + len(fusion._running) <= 1024
    assert len(fusion._collector._jobs._closed) <= 8192
    assert edge.counts["evicted"] > 0


def test_an_escalation_by_a_stranger_opens_and_closes_and_no_more(edge: Driven) -> None:
    assert edge.tell(1.0, escalate(5), escalate(5, "edge"), escalate(5, bundle="b2")) == []
    assert edge.tell(2.0, Tick()) == []
    assert edge.tell(2.0, escalate(5)) == []
    assert len(edge.machine.fusion._collector) == 0


def test_subscriptions_name_only_what_the_node_hears() -> None:
    topics = Driven(manifest_of("c", 3)).machine.subscriptions()
    assert "ddnn/v1/home/scores/cam1" in topics
    assert "ddnn/v1/home/verdict/edge" in topics
    assert "ddnn/v1/home/escalate" in topics
    assert len(set(topics)) == len(topics)
    assert not any(topic.startswith("ddnn/v1/+") for topic in topics)


def test_any_of_several_clouds_will_do() -> None:
    def asked(edge: Driven, sample: int, time_s: float) -> bool:
        """Whether the edge waits for a cloud's verdict."""
        effects = edge.scores(time_s, sample, UNSURE, UNSURE, UNSURE)
        assert published(effects, Kind.ESCALATE)
        return not answers_in(effects)

    def presence_of(node: str, state: str, session: int) -> Received:
        status = Status("cloud", session, state, BUNDLE)
        return Received(Topic(SITE, Kind.STATUS, node), status)

    edge = Driven(manifest_of("c", 3), cloud=False)
    edge.tell(0.5, presence_of("cloud-1", "online", 1), presence_of("cloud-2", "online", 2))
    assert asked(edge, 1, 1.0)
    edge.tell(1.1, presence_of("cloud-1", "lost", 1))
    assert asked(edge, 2, 1.2)
    effects = edge.tell(1.3, presence_of("cloud-2", "lost", 2))
    assert {answer.sample for answer in answers_in(effects)} == {1, 2}  # nobody will say more


def test_a_store_is_no_cloud() -> None:
    edge = Driven(manifest_of("c", 3), cloud=False)
    store = Status("store", 1, "online", BUNDLE)
    edge.tell(0.5, Received(Topic(SITE, Kind.STATUS, "dashboard"), store))
    assert answers_in(edge.scores(1.0, 1, UNSURE, UNSURE, UNSURE))
