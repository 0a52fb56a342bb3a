"""Commands of thresholds: the lead edge uses them from the next sample on, and reports them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.errors import ConfigError
from ddnn.exits.audit import is_audited
from ddnn.exits.entropy import softmax
from ddnn.exits.manifest import Manifest, SweepRow
from ddnn.protocol.machine import Received, Tick
from ddnn.protocol.messages import Thresholds, TimeReply, TimeRequest
from ddnn.protocol.topics import Kind, Topic
from tests.unit.exits.driven_edge import ALL, DrivenEdge, run_edge_section
from tests.unit.exits.exit_builders import (
    BUNDLE,
    EPOCH_S,
    SITE,
    SURE,
    UNSURE,
    list_answers,
    list_published,
    make_manifest,
)

COMMAND = Topic(SITE, Kind.THRESHOLDS, "edge")
ACCURACY = {
    "7": {"local": 0.8, "edge": 0.85, "cloud": 0.9, "overall": 0.88},
    "3": {"local": 0.7, "edge": 0.72, "cloud": 0.75, "overall": 0.74},
}
SWEEP = (SweepRow({"local": 1.0, "edge": 0.5}, 0.81, {"local": 1.0}, 12.0),)


def manifest() -> Manifest:
    return make_manifest("e", 3, accuracy=ACCURACY, sweep=SWEEP)


def make_command(revision: int, bundle: str = BUNDLE, **thresholds: float) -> Received:
    return Received(COMMAND, Thresholds(bundle, thresholds, revision))


def test_a_command_changes_the_exit_and_a_second_one_restores_it() -> None:
    edge = DrivenEdge(manifest())
    assert list_answers(edge.handle_scores(1.0, 1, UNSURE, UNSURE, UNSURE)) == []
    edge.handle(1.05, make_command(1, local=1.0))
    (answer,) = list_answers(edge.handle_scores(1.1, 2, UNSURE, UNSURE, UNSURE))
    assert (answer.exit, answer.quality) == ("local", "full")
    assert edge.machine.gauges["threshold_local"] == 1.0
    assert edge.machine.gauges["threshold_edge"] == 0.5
    assert edge.machine.gauges["threshold_revision"] == 1
    edge.handle(1.12, make_command(2))  # none named: the bundle's own
    assert list_answers(edge.handle_scores(1.15, 3, UNSURE, UNSURE, UNSURE)) == []
    assert edge.machine.gauges["threshold_local"] == 0.5


def test_accuracy_is_not_expected_where_it_was_not_measured() -> None:
    edge = DrivenEdge(manifest())
    (own,) = list_answers(edge.handle_scores(1.0, 1, SURE, SURE, SURE))
    assert own.expected_accuracy == 0.88
    edge.handle(1.1, make_command(1, local=1.0))  # the sweep knows it, for all members
    (swept,) = list_answers(edge.handle_scores(1.2, 2, SURE, SURE, SURE))
    assert swept.expected_accuracy == 0.81
    edge.handle(1.3, make_command(2, local=0.9))
    (unknown,) = list_answers(edge.handle_scores(1.4, 3, SURE, SURE, SURE))
    assert unknown.expected_accuracy is None


@pytest.mark.parametrize(
    "command",
    [
        make_command(5, "other", local=1.0),
        make_command(5, cloud=0.5),
        make_command(5, device=0.5),
        make_command(1, local=1.0),
    ],
    ids=["another bundle", "the deepest exit has none", "a device has none", "older"],
)
def test_a_command_that_does_not_fit_changes_nothing(command: Received) -> None:
    edge = DrivenEdge(manifest())
    edge.handle(1.0, make_command(2, local=0.25))
    before = dict(edge.machine.gauges)
    edge.handle(1.1, command)
    assert edge.machine.gauges == before
    assert edge.machine.counts["thresholds_refused"] == 1


@pytest.mark.parametrize("revision", [2**40, 2**40 + 1, 2**53])
def test_a_forged_revision_does_not_end_the_control(revision: int) -> None:
    edge = DrivenEdge(manifest())
    edge.handle(1.0, make_command(2, local=0.25))
    edge.handle(1.1, make_command(revision, local=1.0))
    edge.handle(1.2, make_command(3, local=0.75))
    assert edge.machine.gauges["threshold_local"] == 0.75
    assert edge.machine.counts["thresholds_refused"] == 1


def test_an_edge_that_starts_takes_the_retained_command_of_its_site_only() -> None:
    edge = DrivenEdge(manifest())
    edge.handle(1.0, make_command(2**40, local=1.0))
    assert edge.machine.gauges["threshold_local"] == 0.5
    edge.handle(1.1, make_command(1234, local=0.25))
    assert edge.machine.gauges["threshold_local"] == 0.25


def test_a_repeated_command_is_accepted() -> None:
    edge = DrivenEdge(manifest())
    for time_s in (1.0, 2.0):
        edge.handle(time_s, make_command(2, local=0.25))
    assert "thresholds_refused" not in edge.machine.counts


def test_bad_thresholds_are_refused_by_name() -> None:
    for bad in ({"local": 1.5}, {"local": -0.1}, {"cloud": 0.5}, {"x": 0.5}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            manifest().with_thresholds(bad)
    same = manifest()
    assert same.with_thresholds({}) is same
    assert same.with_thresholds({"local": 0.5}) is same


def test_an_answer_contains_the_vote_of_each_camera_and_exit() -> None:
    edge = DrivenEdge(manifest())
    edge.handle_scores(1.0, 1, UNSURE, (0.0, 2.0, 0.0), None)
    edge.handle(1.2)  # the window closes without cam3
    edge.handle(1.2, Tick())
    edge.handle_features(1.25, 1, 1, 2)
    effects = edge.handle(1.9, Tick())
    (answer,) = list_answers(effects)
    assert answer.votes.keys() == {"cam1", "cam2"}
    for device, scores in (("cam1", UNSURE), ("cam2", (0.0, 2.0, 0.0))):
        label, probability = answer.votes[device]
        assert label == int(np.argmax(scores))
        assert probability == pytest.approx(softmax(np.array(scores, np.float32)).max())
    assert [tier for tier, _, _ in answer.exit_trace] == ["local"]
    assert answer.exit_trace[-1][1:] == (answer.label, answer.eta)


def test_the_last_exit_of_the_trace_is_the_one_that_answered() -> None:
    edge = DrivenEdge(make_manifest("c", 3))
    edge.handle_scores(1.0, 1, UNSURE, UNSURE, UNSURE)
    (answer,) = list_answers(edge.handle_verdict(1.1, 1, SURE, members=ALL))
    assert [tier for tier, _, _ in answer.exit_trace] == ["local", "cloud"]
    assert answer.exit_trace[-1] == (answer.exit, answer.label, answer.eta)


def test_the_lead_answers_time_requests() -> None:
    edge = DrivenEdge(manifest())
    ask = Received(Topic(SITE, Kind.TIME_REQUEST, "cam2"), TimeRequest(123.5))
    assert list_published(edge.handle(3.0, ask), Kind.TIME_REPLY) == [
        TimeReply(123.5, EPOCH_S + 3.0)
    ]


def test_audited_samples_go_up_though_the_local_exit_is_sure() -> None:
    edge = DrivenEdge(manifest(), audit_share=1.0)
    effects = edge.handle_scores(1.0, 1, SURE, SURE, SURE)
    assert list_answers(effects) == []
    assert len(list_published(effects, Kind.ESCALATE)) == 1
    assert edge.machine.gauges["audit_share"] == 1.0
    effects = edge.handle_features(1.01, 1, 1, 2, 3)
    (answer,) = list_answers(run_edge_section(edge, effects, 1.02, SURE))
    assert (answer.exit, answer.quality) == ("edge", "full")
    assert [tier for tier, *_ in answer.exit_trace] == ["local", "edge"]


def test_an_audit_that_no_deeper_exit_hears_is_answered_in_full() -> None:
    """The local exit was sure, so nothing is lost."""
    letter_c = make_manifest("c", 3, accuracy=ACCURACY)
    edge = DrivenEdge(letter_c, cloud=False, audit_share=1.0)
    edge.handle_scores(0.9, 1, SURE, SURE, SURE)  # probes the cloud, which may be back
    (answer,) = list_answers(edge.handle_scores(1.0, 2, SURE, SURE, SURE))
    assert (answer.exit, answer.quality) == ("local", "full")


@given(st.integers(0, 1 << 50), st.floats(0.02, 1))
def test_an_audit_takes_its_share_of_consecutive_samples(first: int, share: float) -> None:
    taken = sum(is_audited(sample, share) for sample in range(first, first + 2000))
    assert taken / 2000 == pytest.approx(share, abs=0.06)
    assert not is_audited(first, 0.0)
