"""The cloud's machine: the deepest section for many sites, and the recorder of their answers."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from ddnn.exits import fusion_node
from ddnn.exits.cloud_node import CONFIRM_BATCH, CloudNode, StoreNode
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Publish,
    Received,
    Save,
    Saved,
    Tick,
)
from ddnn.protocol.messages import MAX_COUNT, Answer, AnswerAck, Backlog, Status, Tensor
from ddnn.protocol.topics import Kind, Topic
from tests.unit.exits.exit_builders import (
    BUNDLE,
    EDGE_FEATURES,
    IMAGE,
    SITE,
    SURE,
    TIMING,
    at,
    list_published,
    make_bits,
    make_features,
    make_manifest,
    make_presence,
)


def make_cloud(letter: Any = "c", devices: int = 3) -> CloudNode:
    node = CloudNode("+", "cloud", BUNDLE, make_manifest(letter, devices), TIMING)
    node.handle(Connected(), at(0))
    node.handle(make_presence("edge"), at(0))
    return node


def uplink(sample: int = 5, members: int = 0b111, node: str = "edge", **fields: Any) -> Received:
    parts = fields.pop("parts", None) or (make_bits(),) * members.bit_count()
    return make_features(node, sample, members=members, parts=parts, kind=Kind.UPLINK, **fields)


def run(node: CloudNode, effects: list[Effect], scores: Any = SURE) -> list[Effect]:
    (compute,) = effects
    assert isinstance(compute, Compute)
    return node.handle(Computed(compute.job, {"scores": np.array(scores, np.float32)}), at(1.05))


def answer(sample: int = 5, node: str = "edge") -> Answer:
    return Answer(sample, node, "local", 0, [1.0], 0.0, [], [], "full", None, BUNDLE, 0.0, 0.0, 0.0)


def backlog(node: str, *answers: Answer) -> Received:
    return Received(Topic(SITE, Kind.BACKLOG, node), Backlog(list(answers)))


def test_features_are_fused_to_a_verdict() -> None:
    node = make_cloud()
    effects = node.handle(uplink(traffic=(6, 180), label=2), at(1))
    assert isinstance(effects[0], Compute)
    assert effects[0].section == "cloud"
    assert effects[0].inputs["features"].shape == (2, 2, 9)
    (effect,) = run(node, effects)
    assert isinstance(effect, Publish)
    assert effect.topic == Topic(SITE, Kind.VERDICT, "edge")
    message: Any = effect.message
    assert (message.sample, message.members, message.traffic) == (5, 0b111, (6, 180))
    assert (message.label, message.bundle) == (2, BUNDLE)
    assert message.scores == Tensor.of(np.array(SURE, np.float32))


def test_absent_members_are_zeros() -> None:
    (compute,) = make_cloud().handle(uplink(members=0b101), at(1))
    assert isinstance(compute, Compute)
    assert compute.inputs["features"][0, 0].tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1]


def test_features_of_different_sites_are_not_fused() -> None:
    node = make_cloud("f", 4)
    parts = (make_bits(EDGE_FEATURES),)
    for site in ("home", "barn"):
        for edge in ("edge", "edge2"):
            node.handle(
                Received(Topic(site, Kind.STATUS, edge), Status("edge", 1, "online")), at(0)
            )
    one = uplink(members=0b0011, parts=parts, site="home")
    two = uplink(members=0b1100, parts=parts, site="barn", node="edge2")
    assert node.handle(one, at(1)) == node.handle(two, at(1)) == []
    (effect,) = run(node, node.handle(uplink(members=0b0011, parts=parts, site="barn"), at(1.01)))
    assert isinstance(effect, Publish)
    assert effect.topic.site == "barn"


def test_a_missing_edge_delays_the_verdict_by_a_window() -> None:
    node = make_cloud("f", 4)
    node.handle(make_presence("edge2"), at(0))
    assert node.handle(uplink(members=0b11, parts=(make_bits(EDGE_FEATURES),)), at(1)) == []
    (compute,) = node.handle(Tick(), at(1 + TIMING.window_s))
    assert isinstance(compute, Compute)
    assert compute.inputs["features"][..., 2:].max() == 0


def test_repeated_features_do_not_run_the_section_again() -> None:
    node = make_cloud()
    effects = node.handle(uplink(), at(1))
    assert node.handle(uplink(), at(1.01)) == []
    assert len(run(node, effects)) == 1
    assert node.handle(uplink(), at(1.2)) == []
    assert node.counts["features_late"] == 2


def test_a_failed_section_publishes_no_scores() -> None:
    node = make_cloud()
    for n, outputs in enumerate([None, {"scores": np.full(3, np.nan, np.float32)}]):
        (compute,) = node.handle(uplink(n), at(1))
        assert isinstance(compute, Compute)
        assert node.handle(Computed(compute.job, outputs), at(1.1)) == []
    assert node.counts["section_failed"] == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"bundle": "b2"},
        {"members": 0b11},
        {"members": 0b1111},
        {"members": 0b111, "parts": (make_bits(),) * 4},
        {"members": 0b1000, "parts": (make_bits(),)},
        {"parts": (make_bits(EDGE_FEATURES),) * 3},
        {"parts": (Tensor.of(np.zeros((2, 2, 3), np.float32)),) * 3},
        {"node": "edge9"},
        {"node": "cam1"},
    ],
    ids=repr,
)
def test_features_that_do_not_fit_are_refused(fields: dict[str, Any]) -> None:
    fields = {"members": 0b111, "parts": (make_bits(),) * 3, **fields}
    node = make_cloud()
    assert node.handle(uplink(**fields), at(1)) == []
    assert node.handle(Tick(), at(5)) == []
    assert node.counts["features_refused"] == 1


def test_raw_images_are_fused() -> None:
    node = make_cloud("a", 2)
    image = Tensor.of(np.full(IMAGE, 7, np.uint8))
    (compute,) = node.handle(uplink(members=0b11, parts=(image, image)), at(1))
    assert isinstance(compute, Compute)
    assert compute.inputs["features"].shape == (4, 4, 6)
    assert compute.inputs["features"].min() == 7


def test_large_sums_of_bytes_can_be_sent() -> None:
    node = make_cloud("f", 4)
    node.handle(make_presence("edge2"), at(0))
    traffic = (MAX_COUNT, MAX_COUNT)
    parts = (make_bits(EDGE_FEATURES),)
    node.handle(uplink(members=0b0011, parts=parts, traffic=traffic), at(1))
    effects = node.handle(uplink(members=0b1100, parts=parts, traffic=traffic, node="edge2"), at(1))
    (message,) = list_published(run(node, effects), Kind.VERDICT)
    assert decode(Kind.VERDICT, encode(message)).traffic == traffic  # type: ignore[union-attr]


# --------------------------------------------------------------------- answers


def test_answers_are_saved_and_then_confirmed_to_their_nodes() -> None:
    node = make_cloud()
    assert node.handle(Received(Topic(SITE, Kind.ANSWER, "edge"), answer()), at(1)) == [
        Save([(SITE, answer())])
    ]
    (save,) = node.handle(backlog("cam1", answer(1, "cam1"), answer(2, "cam1")), at(1))
    assert save == Save([(SITE, answer(1, "cam1")), (SITE, answer(2, "cam1"))])
    effects = node.handle(Saved([(SITE, answer()), *save.answers]), at(1.1))
    assert effects == [
        Publish(Topic(SITE, Kind.ACK, "edge"), AnswerAck([5])),
        Publish(Topic(SITE, Kind.ACK, "cam1"), AnswerAck([1, 2])),
    ]
    assert node.counts["answers"] == 3


def test_confirmations_fit_into_their_messages() -> None:
    node = make_cloud()
    pairs = [(SITE, answer(n)) for n in range(2 * CONFIRM_BATCH + 1)]
    messages = list_published(node.handle(Saved(pairs), at(1)), Kind.ACK)
    assert [len(m.samples) for m in messages] == [CONFIRM_BATCH, CONFIRM_BATCH, 1]
    for message in messages:
        assert decode(Kind.ACK, encode(message)) == message


def test_a_backlog_holds_only_its_own_nodes_answers() -> None:
    node = make_cloud()
    (save,) = node.handle(backlog("cam1", answer(1, "cam1"), answer(2, "edge")), at(1))
    assert save == Save([(SITE, answer(1, "cam1"))])
    assert node.handle(backlog("cam1", answer(2, "edge")), at(1)) == []
    assert node.handle(backlog("cam1"), at(1)) == []


@pytest.mark.parametrize("name", ["", "CAM", "a/b", "#", "edge\n", "cam1"])
def test_answers_in_the_name_of_another_node_are_refused_and_counted(name: str) -> None:
    node, bad = make_cloud(), msgspec.structs.replace(answer(), node=name)
    assert node.handle(Received(Topic(SITE, Kind.ANSWER, "edge"), bad), at(1)) == []
    assert node.counts["answers_refused"] == 1


def test_every_event_ends_the_collections_that_are_due() -> None:
    """A steady stream of answers must not keep a window open."""
    node = make_cloud("f", 4)
    node.handle(make_presence("edge2"), at(0))
    node.handle(uplink(members=0b11, parts=(make_bits(EDGE_FEATURES),)), at(1))
    effects = node.handle(Received(Topic(SITE, Kind.ANSWER, "edge"), answer()), at(2))
    assert {type(effect) for effect in effects} == {Save, Compute}


# ---------------------------------------------------------------------- floods


def test_a_flood_of_sites_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion_node, "MAX_SITES", 20)
    node = make_cloud()
    for n in range(100):
        topic = Topic(f"site{n}", Kind.STATUS, "edge")
        node.handle(Received(topic, Status("edge", n, "online")), at(1))
        node.handle(uplink(n, site=f"other{n}"), at(1))
    assert len(node.versions.machine._membership) == 20


def test_the_presence_of_unknown_nodes_takes_no_memory() -> None:
    node = make_cloud()
    before = len(node.versions.machine._membership)
    for n in range(100):
        topic = Topic(f"site{n}", Kind.STATUS, f"cam{n}")
        node.handle(Received(topic, Status("edge", n, "online")), at(1))
    assert len(node.versions.machine._membership) == before


def test_a_flood_of_samples_takes_bounded_memory() -> None:
    node = make_cloud()
    for n in range(3000):
        node.handle(uplink(n), at(1))
    assert len(node.versions.machine._collector) + len(node.versions.machine._running) <= 1024
    assert node.counts["samples_refused"] > 1000


def test_a_disconnect_forgets_the_presence_of_all_nodes() -> None:
    node = make_cloud()
    node.handle(Disconnected(), at(1))
    assert len(node.versions.machine._membership) == 0
    node.handle(Connected(), at(2))
    assert len(node.handle(uplink(), at(3))) == 1


# ------------------------------------------------------------- several clouds


def list_subscriptions(letter: Any, devices: int, share: str) -> list[str]:
    manifest = make_manifest(letter, devices)
    return CloudNode("+", "cloud-1", BUNDLE, manifest, TIMING, share).subscriptions()


def test_clouds_of_a_group_divide_samples_and_answers_but_not_presence() -> None:
    filters = list_subscriptions("e", 3, "clouds")
    assert {text for text in filters if text.startswith("$share/clouds/")} == {
        "$share/clouds/ddnn/v1/+/uplink/+",
        "$share/clouds/ddnn/v1/+/answer/+",
        "$share/clouds/ddnn/v1/+/backlog/+",
    }
    everyone = {"ddnn/v1/+/node/+/status", "ddnn/v1/+/node/+/stats", "ddnn/v1/+/offload/+"}
    assert everyone <= set(filters)
    assert not any("$share" in text for text in list_subscriptions("e", 3, ""))


def test_with_several_edges_a_group_does_not_divide_samples() -> None:
    filters = list_subscriptions("f", 6, "clouds")
    assert "ddnn/v1/+/uplink/+" in filters
    assert "$share/clouds/ddnn/v1/+/answer/+" in filters


def test_a_store_without_a_section_records_and_confirms() -> None:
    node = StoreNode("+")
    message = Received(Topic(SITE, Kind.ANSWER, "edge"), answer(7))
    (save,) = node.handle(message, at(1))
    assert isinstance(save, Save)
    (confirmed,) = node.handle(Saved(save.answers), at(1))
    assert confirmed == Publish(Topic(SITE, Kind.ACK, "edge"), AnswerAck([7]))
    assert node.deadline_s() is None
