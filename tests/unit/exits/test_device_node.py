"""The device's machine, driven event by event in virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddnn.exits.device_exit import LIMIT, FrameJob, list_device_sections
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.manifest import judge
from ddnn.exits.pace_follower import HOLD_S
from ddnn.exits.scores import ScoreFormat
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Connected,
    Disconnected,
    Keep,
    Tick,
)
from ddnn.protocol.messages import Tensor
from ddnn.protocol.topics import Kind
from tests.unit.exits.device_builder import (
    list_kept,
    make_answered,
    make_computed,
    make_device,
    make_pace,
)
from tests.unit.exits.exit_builders import (
    BUNDLE,
    DEVICE_FEATURES,
    SURE,
    TIMING,
    at,
    list_answers,
    list_published,
    make_escalate,
    make_frame,
    make_manifest,
    make_presence,
)


@pytest.fixture
def device() -> DeviceNode:
    """cam2 of three devices, connected, with its lead edge online."""
    node = make_device()
    node.handle(Connected(), at(0))
    node.handle(make_presence("edge"), at(0))
    return node


def test_a_frame_is_computed_and_its_scores_published(device: DeviceNode) -> None:
    shot = make_frame(5, 1.0, label=2)
    assert device.handle(shot, at(1.0)) == [Compute(FrameJob("cam2", 5), "cam2", shot.image)]
    (scores,) = list_published(device.handle(make_computed(5), at(1.1)), Kind.SCORES)
    assert (scores.v, scores.sample, scores.bundle, scores.members) == (1, 5, BUNDLE, 0b010)
    assert (scores.captured_at_s, scores.label, scores.traffic) == (shot.captured_at_s, 2, (0, 0))
    assert scores.scores.array().tolist() == list(SURE)


def test_features_are_sent_once_and_on_request_only(device: DeviceNode) -> None:
    device.handle(make_frame(5, 1.0), at(1.0))
    assert list_published(device.handle(make_computed(5), at(1.1)), Kind.FEATURES) == []
    assert device.handle(make_escalate(5, tier="edge"), at(1.2)) == []
    assert device.handle(make_escalate(5, bundle="other"), at(1.2)) == []
    assert device.handle(make_escalate(6), at(1.2)) == []
    (features,) = list_published(device.handle(make_escalate(5), at(1.2)), Kind.FEATURES)
    assert features.parts == (Tensor.of(np.ones(DEVICE_FEATURES, np.float32), bits=True),)
    assert (features.members, features.bundle) == (0b010, BUNDLE)
    assert device.handle(make_escalate(5), at(1.3)) == []


def test_an_escalation_before_the_section_has_ended_sends_nothing(device: DeviceNode) -> None:
    device.handle(make_frame(5, 1.0), at(1.0))
    assert device.handle(make_escalate(5), at(1.05)) == []


def test_after_an_answer_the_device_does_not_answer(device: DeviceNode) -> None:
    for sample in (5, 6):
        device.handle(make_frame(sample, 1.0), at(1.0))
        device.handle(make_computed(sample), at(1.1))
    assert device.handle(make_answered(4, 5, 6), at(1.2)) == []
    assert device.handle(Tick(), at(9.0)) == []
    assert "answered_alone" not in device.counts


def test_an_answer_of_the_edge_counts_while_the_section_runs(device: DeviceNode) -> None:
    device.handle(make_frame(5, 1.0), at(1.0))
    device.handle(make_answered(5), at(1.05))
    assert device.handle(make_computed(5), at(1.1)) == []
    assert device.handle(Tick(), at(9.0)) == []


def test_the_answer_to_another_sample_does_not_count(device: DeviceNode) -> None:
    device.handle(make_frame(5, 1.0), at(1.0))
    device.handle(make_computed(5), at(1.1))
    device.handle(make_answered(4), at(1.2))
    assert len(list_answers(device.handle(Tick(), at(2.0)))) == 1


def test_without_an_answer_the_device_answers_alone_in_time(device: DeviceNode) -> None:
    device.handle(make_frame(5, 1.0, label=2), at(1.0))
    device.handle(make_computed(5), at(1.1))
    due_s = device.deadline_s()
    assert due_s == 1.0 + TIMING.device_s < 1.0 + TIMING.deadline_s
    assert device.handle(Tick(), at(due_s - 0.001)) == []
    (answer,) = list_answers(device.handle(Tick(), at(due_s)))
    own = judge(device.versions.machine.manifest, "device", np.array(SURE, np.float32), 0b010)
    assert (answer.label, answer.probabilities, answer.eta) == (0, own.probabilities, own.eta)
    assert (answer.node, answer.exit, answer.quality) == ("cam2", "device", "degraded")
    assert (answer.members, answer.missing) == (["cam2"], ["cam1", "cam3"])
    assert (answer.expected_accuracy, answer.truth, answer.late) == (0.7, 2, False)
    assert answer.latency_s == pytest.approx(TIMING.device_s)
    assert answer.answered_at_s == at(due_s).wall_s
    device.handle(make_answered(5), at(due_s + 0.1))
    assert list_answers(device.handle(Tick(), at(due_s + 0.2))) == []


def test_without_a_broker_the_device_answers_at_once_and_publishes_nothing() -> None:
    node = make_device()
    node.handle(make_frame(5, 1.0), at(1.0))
    effects = node.handle(make_computed(5), at(1.1))
    assert [type(e) for e in effects] == [Keep]
    assert list_kept(effects)[0].latency_s == pytest.approx(0.1)
    assert list_answers(node.handle(Tick(), at(9.0))) == []


@pytest.mark.parametrize("state", ["lost", "stopped"])
def test_without_its_lead_edge_the_device_answers_at_once(device: DeviceNode, state: str) -> None:
    device.handle(make_presence("edge", state), at(0.5))
    device.handle(make_frame(5, 1.0), at(1.0))
    assert [a.exit for a in list_answers(device.handle(make_computed(5), at(1.1)))] == ["device"]
    device.handle(make_presence("edge", session=2), at(1.5))
    device.handle(make_frame(6, 2.0), at(2.0))
    assert list_answers(device.handle(make_computed(6), at(2.1))) == []


def test_a_late_will_of_an_old_session_of_the_lead_changes_nothing(device: DeviceNode) -> None:
    device.handle(make_presence("edge", session=2), at(0.4))
    device.handle(make_presence("edge", "lost", session=1), at(0.5))
    device.handle(make_frame(5, 1.0), at(1.0))
    assert list_answers(device.handle(make_computed(5), at(1.1))) == []


def test_the_loss_of_other_nodes_changes_nothing(device: DeviceNode) -> None:
    for other in ("cam1", "cloud", "edge2"):
        device.handle(make_presence(other, "lost"), at(0.5))
    device.handle(make_frame(5, 1.0), at(1.0))
    assert list_answers(device.handle(make_computed(5), at(1.1))) == []


def test_a_device_waits_for_a_lead_that_is_not_announced_yet() -> None:
    node = make_device()
    node.handle(Connected(), at(0))
    node.handle(make_frame(5, 1.0), at(1.0))
    assert list_answers(node.handle(make_computed(5), at(1.1))) == []
    assert len(list_answers(node.handle(Tick(), at(1.88)))) == 1


def test_a_sample_is_answered_after_the_broker_was_lost(device: DeviceNode) -> None:
    device.handle(make_frame(5, 1.0), at(1.0))
    device.handle(make_computed(5), at(1.1))
    device.handle(Disconnected(), at(1.2))
    assert device.handle(make_escalate(5), at(1.3)) == []
    (answer,) = list_kept(device.handle(Tick(), at(1.88)))
    assert answer.label == 0


def test_a_failed_section_ends_in_an_answer_without_a_label(device: DeviceNode) -> None:
    device.handle(make_frame(5, 1.0), at(1.0))
    assert device.handle(Computed(FrameJob("cam2", 5), None), at(1.1)) == []
    (answer,) = list_answers(device.handle(Tick(), at(1.88)))
    assert (answer.label, answer.probabilities, answer.eta) == (-1, [], 1.0)
    assert device.counts["section_failed"] == 1


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_count_as_a_failed_section(
    device: DeviceNode, number: float
) -> None:
    device.handle(make_frame(5, 1.0), at(1.0))
    assert device.handle(make_computed(5, (number, 0, 0)), at(1.1)) == []
    (answer,) = list_answers(device.handle(Tick(), at(1.88)))
    assert (answer.label, answer.eta) == (-1, 1.0)


def test_a_repeated_frame_does_not_open_a_sample(device: DeviceNode) -> None:
    device.handle(make_frame(5, 1.0), at(1.0))
    assert device.handle(make_frame(5, 1.0), at(1.01)) == []
    device.handle(make_computed(5), at(1.1))
    device.handle(Tick(), at(2.0))
    assert device.handle(make_frame(5, 1.0), at(3.0)) == []
    assert device.counts["frames_repeated"] == 2


def test_the_newest_frame_replaces_a_waiting_one(device: DeviceNode) -> None:
    device.handle(make_frame(1, 1.0), at(1.0))
    for n in (2, 3, 4):
        assert device.handle(make_frame(n, 1.0 + n / 100, value=n), at(1.0 + n / 100)) == []
    assert device.counts["frames_skipped"] == 2
    scores, compute = device.handle(make_computed(1), at(1.5))
    assert isinstance(compute, Compute)
    assert compute.job == FrameJob("cam2", 4)
    assert compute.inputs["image"].max() == 4
    assert scores in device.handle(make_computed(1), at(1.5)) or list_published(
        [scores], Kind.SCORES
    )
    answered = [a.sample for a in list_answers(device.handle(Tick(), at(9)))]
    assert sorted(answered) == [1, 4]


def test_a_waiting_frame_keeps_its_own_deadline(device: DeviceNode) -> None:
    device.handle(make_frame(1, 1.0), at(1.0))
    device.handle(make_frame(2, 1.1), at(1.1))
    device.handle(make_computed(1), at(1.6))
    device.handle(make_computed(2), at(1.7))
    answers = list_answers(device.handle(Tick(), at(1.1 + TIMING.device_s)))
    assert [(a.sample, round(a.latency_s, 6)) for a in answers] == [(1, 0.98), (2, 0.88)]


def test_waiting_frames_are_answered_while_the_section_hangs(
    device: DeviceNode,
) -> None:
    device.handle(make_frame(1, 1.0), at(1.0))
    device.handle(make_frame(2, 1.1), at(1.1))
    answers = list_answers(device.handle(Tick(), at(1.1 + TIMING.device_s)))
    assert [(a.sample, a.label) for a in answers] == [(1, -1), (2, -1)]
    assert device.handle(make_computed(1), at(5)) == []  # nothing is left to be computed


def test_a_waiting_frame_that_was_answered_is_not_computed(device: DeviceNode) -> None:
    device.handle(make_frame(1, 1.0), at(1.0))
    device.handle(make_frame(2, 1.1), at(1.1))
    device.handle(make_answered(2), at(1.2))
    assert [type(e).__name__ for e in device.handle(make_computed(1), at(1.3))] == ["Publish"]
    device.handle(make_frame(3, 1.4), at(1.4))
    assert "frames_skipped" not in device.counts


def test_open_samples_are_bounded_and_the_oldest_answers_early(device: DeviceNode) -> None:
    answered = []
    for n in range(LIMIT + 3):
        effects = device.handle(make_frame(n, 1.0), at(1.0))
        effects += device.handle(make_computed(n), at(1.0))
        answered += [a.sample for a in list_answers(effects)]
    assert answered == [0, 1, 2]


@pytest.mark.parametrize("name", ["float16", "uint8"])
def test_the_device_exit_uses_the_scores_as_they_are_decoded(name: Any) -> None:
    form = ScoreFormat(name, -4, 4)
    node = make_device(make_manifest("c", 3, score_format=form))
    node.handle(Connected(), at(0))
    node.handle(make_frame(5, 1.0), at(1.0))
    exact = np.array([0.1234567, 1.7654321, -3.333333], np.float32)
    (scores,) = list_published(node.handle(make_computed(5, exact), at(1.1)), Kind.SCORES)
    assert scores.scores == Tensor.of(form.encode(exact))
    (answer,) = list_answers(node.handle(Tick(), at(1.9)))
    wire = form.decode(form.encode(exact))
    assert answer.eta == judge(node.versions.machine.manifest, "device", wire, 2).eta


def test_configuration_a_sends_the_raw_image_unasked() -> None:
    node = make_device(make_manifest("a", 3))
    assert list_device_sections(node.versions.machine.manifest, "cam2") == ()
    node.handle(Connected(), at(0))
    node.handle(make_presence("edge"), at(0))
    shot = make_frame(5, 1.0, value=9)
    (features,) = list_published(node.handle(shot, at(1.0)), Kind.FEATURES)
    assert features.parts == (Tensor.of(shot.image["image"]),)
    (answer,) = list_answers(node.handle(Tick(), at(1.88)))
    assert (answer.label, answer.exit) == (-1, "device")


def test_configuration_a_without_a_broker() -> None:
    node = make_device(make_manifest("a", 3))
    effects = node.handle(make_frame(5, 1.0), at(1.0))
    assert [type(e) for e in effects] == [Keep]


# -------------------------------------------------------------------------- pace


def test_ticks_that_the_site_does_not_take_are_not_computed(device: DeviceNode) -> None:
    device.handle(make_pace(512, 10), at(0.5))
    computed = []
    for sample in range(6, 16):
        effects = device.handle(make_frame(sample, 1.0), at(1.0))
        computed += [e.job for e in effects if isinstance(e, Compute)]
        device.handle(make_computed(sample), at(1.0))
    assert computed == [FrameJob("cam2", sample) for sample in (6, 7, 8, 9, 10, 12, 14)]
    assert device.counts["frames_shed"] == 3


def test_what_is_shed_after_its_capture_is_not_answered(device: DeviceNode) -> None:
    for sample in range(6, 10):
        device.handle(make_frame(sample, 1.0), at(1.0))
        device.handle(make_computed(sample), at(1.0))
    device.handle(make_pace(256, 7), at(1.1))  # every fourth tick: 8
    answered = [a.sample for a in list_answers(device.handle(Tick(), at(2.0)))]
    assert answered == [6, 8]
    assert device.counts["frames_shed"] == 2


@pytest.mark.parametrize("event", [Disconnected(), make_presence("edge", state="lost")])
def test_without_a_lead_every_tick_is_taken_after_a_while(device: DeviceNode, event: Any) -> None:
    device.handle(make_pace(512, 0), at(0.5))
    device.handle(event, at(1.0))
    device.handle(Tick(), at(1.0 + HOLD_S - 0.1))
    assert not device.pace.is_admitted(7)
    assert device.deadline_s() == 1.0 + HOLD_S
    device.handle(Tick(), at(1.0 + HOLD_S))
    assert device.pace.is_admitted(7)


def test_the_pace_of_a_lead_that_returns_stays_in_force(device: DeviceNode) -> None:
    device.handle(make_pace(512, 0), at(0.5))
    device.handle(make_presence("edge", state="lost"), at(1.0))
    device.handle(make_presence("edge"), at(2.0))
    device.handle(Tick(), at(60.0))
    assert not device.pace.is_admitted(7)
