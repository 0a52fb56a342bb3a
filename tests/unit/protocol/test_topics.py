"""Topics: built and parsed in one place, and no filter takes what is another kind's."""

from __future__ import annotations

import contextlib
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.errors import RemoteProtocolError
from ddnn.protocol.topics import (
    EVERYWHERE,
    Kind,
    Topic,
    find_qos,
    parse,
    presence_filters,
    share_filter,
    topic_filter,
)
from tests.unit.protocol.messages_made import IDS


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1, section 4.7, without the special case of topics that begin with $."""
    wanted, given_ = topic_filter.split("/"), topic.split("/")
    for i, part in enumerate(wanted):
        if part == "#":
            return True
        if i >= len(given_) or part not in ("+", given_[i]):
            return False
    return len(wanted) == len(given_)


def test_the_reference_matcher() -> None:
    assert matches("a/+/c", "a/b/c")
    assert matches("a/#", "a/b/c")
    assert not matches("a/+", "a/b/c")
    assert not matches("a/b/c", "a/b")


@given(site=IDS, node=IDS, kind=st.sampled_from(Kind))
def test_what_is_built_is_parsed(site: str, node: str, kind: Kind) -> None:
    topic = Topic(site, kind, node if kind.value.per_node else "")
    assert parse(str(topic)) == topic


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_a_filter_takes_its_own_kind_and_no_other(kind: Kind) -> None:
    for site, node in product(("home", "+"), ("cam1", "+")):
        text = topic_filter(kind, site, node)
        for other in Kind:
            own = str(Topic("home", other, "cam1" if other.value.per_node else ""))
            assert matches(text, own) == (other is kind)


def test_filters_of_a_site_and_a_node_take_only_theirs() -> None:
    text = topic_filter(Kind.SCORES, "home", "cam1")
    assert matches(text, str(Topic("home", Kind.SCORES, "cam1")))
    assert not matches(text, str(Topic("home", Kind.SCORES, "cam2")))
    assert not matches(text, str(Topic("barn", Kind.SCORES, "cam1")))


def test_presence_is_heard_of_the_site_and_of_those_that_serve_all() -> None:
    def is_heard(site: str) -> bool:
        topic = str(Topic(site, Kind.STATUS, "cloud"))
        return any(matches(text, topic) for text in presence_filters("home"))

    assert [is_heard(site) for site in ("home", EVERYWHERE, "barn")] == [True, True, False]


def test_the_topics_as_documented() -> None:
    assert str(Topic("home", Kind.STATUS, "cam1")) == "ddnn/v1/home/node/cam1/status"
    assert str(Topic("home", Kind.SCORES, "cam1")) == "ddnn/v1/home/scores/cam1"
    assert str(Topic("home", Kind.ANSWER, "edge")) == "ddnn/v1/home/answer/edge"


def test_only_presence_and_settings_are_retained() -> None:
    retained = {kind for kind in Kind if kind.value.retain}
    assert retained == {
        Kind.STATUS,
        Kind.THRESHOLDS,
        Kind.REACH,
        Kind.OFFER,
        Kind.ASSIGN,
        Kind.PACE,
        Kind.TRAIN_OFFER,
        Kind.BUNDLE_ORDER,
        Kind.BUNDLE_PART,
        Kind.BUNDLE_STATE,
    }
    confirmed = {kind for kind in Kind if kind.value.qos}
    assert confirmed == {
        *retained,
        Kind.CLAIM,
        Kind.BACKLOG,
        Kind.ACK,
        Kind.TRAIN_COMMAND,
        Kind.TRAIN_REPLY,
        Kind.RECORD_ORDER,
    }


def test_a_shared_subscription_names_its_group() -> None:
    assert share_filter("ddnn/v1/+/answer/+", "clouds") == "$share/clouds/ddnn/v1/+/answer/+"
    assert share_filter("ddnn/v1/+/answer/+", "") == "ddnn/v1/+/answer/+"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "ddnn/v1/home",
        "ddnn/v2/home/escalate",
        "ddnn/v1/home/answer",
        "ddnn/v1/home/answer/",
        "ddnn/v1/home/escalate/",
        "ddnn/v1/home/escalate/cam1",
        "ddnn/v1//escalate",
        "ddnn/v1/HOME/escalate",
        "ddnn/v1/home/scores",
        "ddnn/v1/home/scores/",
        "ddnn/v1/home/scores/+",
        "ddnn/v1/home/scores/cam1/",
        "ddnn/v1/home/scores/cam1\n",
        "ddnn/v1/home/scores/cam1/status",
        "ddnn/v1/home/node/cam1",
        "ddnn/v1/home/node/cam1/",
        "ddnn/v1/home/node/cam1/status/x",
        "ddnn/v1/home/node/cam1/status\0",
        "/ddnn/v1/home/escalate",
        "ddnn/v1/home/scores/" + "a" * 65,
        "ddnn/v1/home/scores/" + "a/" * 100_000,
        "ddnn/v1/home/scores/cäm",
        "ddnn/v1/home/scores/\ud800",
        "ddnn/v1/home/scores/٣",
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_other_topics_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(text)


@given(text=st.text(max_size=300))
def test_any_text_is_refused_or_a_topic(text: str) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert str(parse(text)) == text


_WORDS = st.sampled_from(
    ["ddnn", "v1", "", "node", "status", "scores", "result", "cam1", "stats", "uplink", "\n", "+"]
)


@given(parts=st.lists(_WORDS, max_size=8), tail=st.lists(_WORDS, max_size=4))
def test_any_path_is_refused_or_a_topic(parts: list[str], tail: list[str]) -> None:
    for text in ("/".join(parts), "/".join(["ddnn", "v1", "home", *tail])):
        with contextlib.suppress(RemoteProtocolError):
            assert str(parse(text)) == text


@pytest.mark.parametrize("kind", Kind)
def test_a_filter_has_the_quality_of_service_of_its_kind(kind: Kind) -> None:
    for text in (topic_filter(kind), topic_filter(kind, "home", "cam1")):
        assert find_qos(text) == find_qos(share_filter(text, "clouds")) == kind.value.qos
    for other in ("ddnn/v1/home/node/cam1/#", "a", "$share/a", "x/y/z/u", "ddnn/v1/home/other/+"):
        assert find_qos(other) == 1
