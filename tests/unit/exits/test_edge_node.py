"""The edge's machine (exits, fusion, outbox), driven event by event in virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddnn.exits.cost import compute_communication_bytes
from ddnn.exits.manifest import judge
from ddnn.exits.scores import ScoreFormat
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Disconnected,
    Received,
    Tick,
)
from ddnn.protocol.messages import Status, Tensor
from ddnn.protocol.topics import Kind, Topic
from tests.unit.exits.driven_edge import ALL, DrivenEdge, run_edge_section
from tests.unit.exits.exit_builders import (
    BUNDLE,
    EDGE_FEATURES,
    EPOCH_S,
    SITE,
    SURE,
    TIMING,
    UNSURE,
    list_answers,
    list_published,
    make_bits,
    make_escalate,
    make_features,
    make_manifest,
    make_presence,
    make_scores,
)

# ---------------------------------------------------------------- happy paths


def test_a_sure_sample_exits_locally_once_all_members_have_reported(edge: DrivenEdge) -> None:
    assert edge.handle_scores(1.0, 5, SURE, UNSURE) == []
    (answer,) = list_answers(edge.handle_scores(1.02, 5, None, None, UNSURE))
    assert (answer.sample, answer.node, answer.exit) == (5, "edge", "local")
    assert (answer.members, answer.missing) == (["cam1", "cam2", "cam3"], [])
    assert (answer.quality, answer.expected_accuracy) == ("full", 0.9)
    assert (answer.label, answer.late, answer.bundle) == (0, False, BUNDLE)
    assert answer.captured_at_s == EPOCH_S + 1.0
    assert answer.latency_s == pytest.approx(0.02)
    fused = np.maximum(np.float32(SURE), np.float32(UNSURE))
    assert answer.probabilities == judge(edge.manifest, "local", fused, ALL).probabilities
    assert answer.payload_bytes == 3 * compute_communication_bytes(3, 1.0, 3, 4) == 36
    assert answer.wire_bytes == 210


def test_an_unsure_sample_goes_to_the_cloud(edge: DrivenEdge) -> None:
    effects = edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    assert [(m.sample, m.tier) for m in list_published(effects, Kind.ESCALATE)] == [(5, "local")]
    assert list_published(edge.handle_features(1.05, 5, 1, 2), Kind.UPLINK) == []
    (uplink,) = list_published(edge.handle_features(1.06, 5, 3), Kind.UPLINK)
    assert (uplink.members, len(uplink.parts), uplink.traffic) == (ALL, 3, (6, 180))
    (answer,) = list_answers(edge.handle_verdict(1.1, 5, (0.0, 9.0, 0.0), traffic=uplink.traffic))
    assert (answer.exit, answer.label, answer.quality) == ("cloud", 1, "full")
    assert answer.payload_bytes == 3 * compute_communication_bytes(3, 0.0, 3, 4) == 42
    assert answer.wire_bytes == 390
    (answered,) = list_published(edge.handle_verdict(1.2, 5), Kind.ANSWERED)  # and no answer
    assert answered.samples == [5]
    assert list_answers(edge.handle(9, Tick())) == []


def test_the_parts_go_up_in_the_order_of_the_members(edge: DrivenEdge) -> None:
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    values = {1: 1.0, 2: -1.0, 3: 1.0}
    effects = []
    for n in (3, 1, 2):
        part = make_bits(value=values[n])
        effects += edge.handle(1.05, make_features(f"cam{n}", 5, members=1 << n - 1, parts=(part,)))
    (uplink,) = list_published(effects, Kind.UPLINK)
    assert uplink.parts == tuple(make_bits(value=values[n]) for n in (1, 2, 3))


def test_a_sure_sample_exits_at_the_edge() -> None:
    edge = DrivenEdge(make_manifest("e", 3))
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    effects = edge.handle_features(1.05, 5, 1, 2, 3)
    (compute,) = effects
    assert isinstance(compute, Compute)
    assert compute.section == "edge"
    assert compute.inputs["features"].shape == (2, 2, 9)
    effects = run_edge_section(edge, effects, 1.06, SURE)
    assert list_published(effects, Kind.SCORES) == []  # they do not leave the process
    (answer,) = list_answers(effects)
    assert (answer.exit, answer.quality, answer.label) == ("edge", "full", 0)
    assert answer.payload_bytes == 42
    assert answer.wire_bytes == 390


def test_a_sample_that_is_unsure_at_the_edge_goes_to_the_cloud() -> None:
    edge = DrivenEdge(make_manifest("e", 3))
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    effects = run_edge_section(edge, edge.handle_features(1.05, 5, 1, 2, 3), 1.06, UNSURE)
    assert [m.tier for m in list_published(effects, Kind.ESCALATE)] == ["edge"]
    (uplink,) = list_published(effects, Kind.UPLINK)
    assert uplink.parts == (make_bits(EDGE_FEATURES, -1),)
    (answer,) = list_answers(edge.handle_verdict(1.1, 5))
    assert (answer.exit, answer.payload_bytes, answer.wire_bytes) == ("cloud", 42, 390)


def test_with_several_edges_the_lead_waits_for_the_scores_of_all() -> None:
    manifest = make_manifest("f", 4)
    lead, second = DrivenEdge(manifest), DrivenEdge(manifest, "edge2")
    effects = lead.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE, UNSURE)
    assert len(list_published(effects, Kind.ESCALATE)) == 1
    second.handle(1.01, make_escalate(5))
    effects = second.handle_features(1.02, 5, 3, 4)
    (other,) = list_published(run_edge_section(second, effects, 1.03, UNSURE), Kind.SCORES)
    assert (other.members, other.traffic) == (0b1100, (4, 120))
    effects = run_edge_section(lead, lead.handle_features(1.03, 5, 1, 2), 1.04, SURE)
    assert list_answers(effects) == []  # the other edge is awaited
    message = make_scores("edge2", 5, UNSURE, members=other.members, traffic=other.traffic)
    (answer,) = list_answers(lead.handle(1.05, message))
    assert (answer.exit, answer.members) == ("edge", ["cam1", "cam2", "cam3", "cam4"])
    assert answer.payload_bytes == 4 * compute_communication_bytes(3, 0.0, 3, 4)
    assert answer.quality == "full"


def test_an_edge_that_does_not_lead_does_not_answer() -> None:
    second = DrivenEdge(make_manifest("f", 4), "edge2")
    assert second.handle_scores(1.0, 5, SURE, SURE, SURE, SURE) == []
    assert second.machine.versions.machine.exits is None


def test_configuration_a_answers_from_raw_images() -> None:
    edge = DrivenEdge(make_manifest("a", 2))
    raw = Tensor.of(np.zeros((4, 4, 3), np.uint8))
    one = make_features("cam1", 5, members=1, parts=(raw,), time_s=1.0, wire_bytes=100)
    two = make_features("cam2", 5, members=2, parts=(raw,), time_s=1.0, wire_bytes=100)
    assert edge.handle(1.0, one) == []
    (uplink,) = list_published(edge.handle(1.01, two), Kind.UPLINK)
    assert (len(uplink.parts), uplink.traffic) == (2, (96, 200))
    (answer,) = list_answers(edge.handle_verdict(1.1, 5, members=3, traffic=uplink.traffic))
    assert (answer.exit, answer.payload_bytes) == ("cloud", 96)


@pytest.mark.parametrize("name", ["float16", "uint8"])
def test_scores_are_read_in_the_format_of_the_manifest(name: Any) -> None:
    form = ScoreFormat(name, -20, 20)
    edge = DrivenEdge(make_manifest("c", 3, score_format=form))
    effects = []
    for i in range(3):
        tensor = Tensor.of(form.encode(np.array(SURE, np.float32)))
        event = make_scores(f"cam{i + 1}", 5, members=1 << i, tensor=tensor, time_s=1.0)
        effects += edge.handle(1.0, event)
    (answer,) = list_answers(effects)
    assert answer.payload_bytes == 3 * compute_communication_bytes(
        3, 1.0, 3, 4, form.bytes_per_score
    )


# ------------------------------------------------------------------ degraded


def test_without_the_cloud_the_local_exit_answers_at_once() -> None:
    edge = DrivenEdge(make_manifest("c", 3, accuracy={"7": {"local": 0.8}}), cloud=False)
    effects = edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    (answer,) = list_answers(effects)
    assert list_published(effects, Kind.ESCALATE) == []
    assert (answer.exit, answer.quality, answer.expected_accuracy) == ("local", "degraded", 0.8)


def test_without_the_cloud_the_edge_exit_answers() -> None:
    edge = DrivenEdge(make_manifest("e", 3), cloud=False)
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    effects = run_edge_section(edge, edge.handle_features(1.05, 5, 1, 2, 3), 1.06, UNSURE)
    (answer,) = list_answers(effects)
    assert (answer.exit, answer.quality) == ("edge", "degraded")


def test_a_cloud_that_dies_ends_the_wait_for_it(edge: DrivenEdge) -> None:
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    (answer,) = list_answers(edge.handle(1.2, make_presence("cloud", "lost")))
    assert (answer.exit, answer.quality) == ("local", "degraded")


def test_the_edge_waits_for_a_silent_cloud_until_its_deadline(edge: DrivenEdge) -> None:
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    assert list_answers(edge.handle(1.69, Tick())) == []
    (answer,) = list_answers(edge.handle(1.0 + TIMING.edge_s, Tick()))
    assert (answer.exit, answer.quality) == ("local", "degraded")
    assert answer.latency_s <= TIMING.deadline_s
    assert list_answers(edge.handle_verdict(1.8, 5)) == []
    assert edge.counts["verdict_late"] == 1


def test_after_two_samples_the_edge_stops_waiting_for_a_silent_cloud(edge: DrivenEdge) -> None:
    for n in range(2):
        edge.handle_scores(1.0 + n, n, UNSURE, UNSURE, UNSURE)
        edge.handle(1.7 + n, Tick())
    assert len(list_answers(edge.handle_scores(3.0, 2, UNSURE, UNSURE, UNSURE))) == 1
    edge.handle(3.01, make_scores("edge", 77, SURE, members=7, kind=Kind.VERDICT))
    edge.handle_scores(4.0, 3, UNSURE, UNSURE, UNSURE)  # asked once more, to see whether it lives
    edge.handle_verdict(4.05, 3)
    assert list_answers(edge.handle_scores(5.0, 4, UNSURE, UNSURE, UNSURE)) == []
    assert [a.exit for a in list_answers(edge.handle_verdict(5.1, 4))] == ["cloud"]


def test_a_missing_member_delays_the_answer_by_a_window(edge: DrivenEdge) -> None:
    edge.handle_scores(1.0, 5, SURE, SURE)
    due_s = edge.machine.deadline_s()
    assert due_s == pytest.approx(1.0 + TIMING.window_s)
    assert edge.handle(due_s - 0.001, Tick()) == []
    (answer,) = list_answers(edge.handle(due_s, Tick()))
    assert (answer.members, answer.missing) == (["cam1", "cam2"], ["cam3"])
    assert (answer.quality, answer.expected_accuracy) == ("degraded", 0.7)
    assert answer.payload_bytes == 24


def test_a_member_that_is_known_to_be_away_adds_no_delay(edge: DrivenEdge) -> None:
    edge.handle(0.5, make_presence("cam3", "lost"))
    (answer,) = list_answers(edge.handle_scores(1.0, 5, SURE, SURE))
    assert answer.missing == ["cam3"]


def test_a_member_that_leaves_ends_the_wait_for_it(edge: DrivenEdge) -> None:
    edge.handle_scores(1.0, 5, SURE, SURE)
    assert len(list_answers(edge.handle(1.03, make_presence("cam3", "lost")))) == 1


def test_after_two_windows_the_edge_stops_waiting_for_a_silent_member(edge: DrivenEdge) -> None:
    for n in range(2):
        edge.handle_scores(1.0 + n, n, SURE, SURE)
        edge.handle(1.1 + n, Tick())
    assert len(list_answers(edge.handle_scores(3.0, 2, SURE, SURE))) == 1
    edge.handle_scores(3.05, 2, None, None, SURE)  # it speaks again, within the window
    assert list_answers(edge.handle_scores(4.0, 3, SURE, SURE)) == []


def test_missing_features_delay_by_a_window_and_the_others_are_sent_up(edge: DrivenEdge) -> None:
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    edge.handle_features(1.05, 5, 1, 3)
    (uplink,) = list_published(edge.handle(1.1, Tick()), Kind.UPLINK)
    assert (uplink.members, len(uplink.parts)) == (0b101, 2)
    (answer,) = list_answers(edge.handle_verdict(1.2, 5, members=0b101, traffic=uplink.traffic))
    assert (answer.missing, answer.quality) == (["cam2"], "degraded")
    assert answer.payload_bytes == 3 * 12 + 2 * 2


def test_a_failed_edge_section_ends_in_the_local_answer() -> None:
    edge = DrivenEdge(make_manifest("e", 3))
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    (compute,) = edge.handle_features(1.05, 5, 1, 2, 3)
    assert isinstance(compute, Compute)
    assert edge.handle(1.06, Computed(compute.job, None)) == []
    answers = list_answers(edge.handle(1.0 + 2 * TIMING.window_s, Tick()))
    assert [(a.exit, a.quality) for a in answers] == [("local", "degraded")]
    assert edge.counts["section_failed"] == 1


def test_outputs_of_the_edge_section_that_are_not_finite_count_as_a_failure() -> None:
    edge = DrivenEdge(make_manifest("e", 3))
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    effects = edge.handle_features(1.05, 5, 1, 2, 3)
    assert run_edge_section(edge, effects, 1.06, (np.nan, 0, 0)) == []
    assert edge.counts["section_failed"] == 1


def test_the_broker_going_away_does_not_lose_an_open_sample(edge: DrivenEdge) -> None:
    edge.handle_scores(1.0, 5, UNSURE, UNSURE, UNSURE)
    edge.handle(1.1, Disconnected())
    effects = edge.handle(1.7, Tick())
    assert [type(e).__name__ for e in effects] == ["Keep"]


# ------------------------------------------------------------------- presence


def test_subscriptions_match_only_messages_that_the_node_reads() -> None:
    topics = DrivenEdge(make_manifest("c", 3)).machine.subscriptions()
    assert "ddnn/v1/home/scores/cam1" in topics
    assert "ddnn/v1/home/verdict/edge" in topics
    assert "ddnn/v1/home/escalate" in topics
    assert len(set(topics)) == len(topics)
    assert not any(topic.startswith("ddnn/v1/+") for topic in topics)


def test_one_of_several_clouds_suffices() -> None:
    def ask_cloud(edge: DrivenEdge, sample: int, time_s: float) -> bool:
        """Whether the edge waits for the verdict of a cloud."""
        effects = edge.handle_scores(time_s, sample, UNSURE, UNSURE, UNSURE)
        assert list_published(effects, Kind.ESCALATE)
        return not list_answers(effects)

    def make_cloud_status(node: str, state: str, session: int) -> Received:
        status = Status("cloud", session, state, BUNDLE)
        return Received(Topic(SITE, Kind.STATUS, node), status)

    edge = DrivenEdge(make_manifest("c", 3), cloud=False)
    edge.handle(
        0.5, make_cloud_status("cloud-1", "online", 1), make_cloud_status("cloud-2", "online", 2)
    )
    assert ask_cloud(edge, 1, 1.0)
    edge.handle(1.1, make_cloud_status("cloud-1", "lost", 1))
    assert ask_cloud(edge, 2, 1.2)
    effects = edge.handle(1.3, make_cloud_status("cloud-2", "lost", 2))
    assert {answer.sample for answer in list_answers(effects)} == {1, 2}  # nobody will say more


def test_a_store_does_not_count_as_a_cloud() -> None:
    edge = DrivenEdge(make_manifest("c", 3), cloud=False)
    store = Status("store", 1, "online", BUNDLE)
    edge.handle(0.5, Received(Topic(SITE, Kind.STATUS, "dashboard"), store))
    assert list_answers(edge.handle_scores(1.0, 1, UNSURE, UNSURE, UNSURE))


def test_scores_that_came_late_are_used_at_the_deadline(edge: DrivenEdge) -> None:
    """The window for the third would end after the edge has to answer."""
    edge.handle_scores(1.0, 4, SURE, SURE, SURE)  # without delay
    at_s = 2.0 + TIMING.edge_share * TIMING.deadline_s
    for n in (1, 2):
        scores = make_scores(f"cam{n}", 5, SURE, members=1 << n - 1, time_s=2.0, wire_bytes=70)
        assert list_answers(edge.handle(at_s - 0.05, scores)) == []
    (answer,) = list_answers(edge.handle(at_s + 0.001, Tick()))
    assert (answer.exit, answer.label, answer.node) == ("local", 0, "edge")
    assert (answer.members, answer.missing) == (["cam1", "cam2"], ["cam3"])
    assert "unanswered" not in edge.counts
