"""Which topics a node writes and reads, by its roles.

The access lists of brokers are derived from this one table, and so is what the signature of a
command proves: a key that speaks for a node may command only what the node may write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Literal, NamedTuple

from ddnn.protocol.topics import EVERYWHERE, Kind, Topic, probe, topic_filter

Role = Literal[
    "device",
    "worker",
    "edge",
    "cloud",
    "dashboard",
    "trainer",
    "central",
    "collector",
    "deployer",
    "observer",
    "bridge",
]
ROLES: dict[Role, str] = {
    "device": "a camera and its section",
    "worker": "lends its computing power to a layer that an edge shares",
    "edge": "an edge, which decides and answers",
    "cloud": "the cloud's section, and a recorder of answers",
    "dashboard": "the page and a recorder; sends thresholds",
    "trainer": "a node that trains a part of a network",
    "central": "the node that drives a training",
    "collector": "records pictures of devices that allow it: ddnn collect",
    "deployer": "changes the bundle of the site: ddnn rollout",
    "observer": "reads presence, statistics and answers: ddnn status, Home Assistant",
    "bridge": "the broker of a site, which connects to the cloud's broker; its id is the site's",
}
EVERY_NODE = "+"


class Of(Enum):
    """Whose topics a right is for."""

    OWN = "the node's own"
    EVERY = "those of every node of the site"
    DEVICES = ("device",)
    WORKERS = ("worker",)
    EDGES = ("edge",)
    ANSWERING = ("device", "edge")
    CLOUDS = ("cloud", "dashboard")
    MEMBERS = ("device", "worker", "edge", "cloud", "dashboard")
    COLLECTORS = ("collector",)
    TRAINERS = ("trainer",)
    TRAINING = ("trainer", "central")


class Right(NamedTuple):
    """A right to write or read the topics of one kind."""

    kind: Kind
    of: Of = Of.OWN


class Rights(NamedTuple):
    """What one role writes and reads."""

    write: tuple[Right, ...]
    read: tuple[Right, ...]


class Filters(NamedTuple):
    """Topic filters, sorted."""

    write: tuple[str, ...]
    read: tuple[str, ...]


_TO_TRAINERS = (Kind.TRAIN_FLOW, Kind.TRAIN_FETCH, Kind.TRAIN_PART)
_RECORDED = (
    Right(Kind.ANSWER, Of.EVERY),
    Right(Kind.BACKLOG, Of.EVERY),
    Right(Kind.STATS, Of.EVERY),
    Right(Kind.OFFLOAD, Of.EVERY),
    Right(Kind.TRAIN_STATE, Of.EVERY),
    Right(Kind.BUNDLE_STATE, Of.EVERY),
    Right(Kind.STATUS, Of.EVERY),
)
# The parts of a bundle are for every node, and a node subscribes to one after the other.
_ORDERED = (Right(Kind.BUNDLE_ORDER), Right(Kind.BUNDLE_PART, Of.EVERY))
_PRESENT = Rights(  # of every role; devices use the lead edge's time, the others ask in `doctor`
    (Right(Kind.STATUS), Right(Kind.STATS), Right(Kind.CLAIM), Right(Kind.TIME_REQUEST)),
    (Right(Kind.STATUS), Right(Kind.STATS), Right(Kind.CLAIM), Right(Kind.TIME_REPLY)),
)

TABLE: Mapping[Role, Rights] = {
    "device": Rights(
        (
            Right(Kind.SCORES),
            Right(Kind.FEATURES),
            Right(Kind.ANSWER),
            Right(Kind.ANSWERED),
            Right(Kind.BACKLOG),
            Right(Kind.OFFER),  # it withdraws one of an earlier start
            Right(Kind.LATEST),
            Right(Kind.RECORD_STATE),
            Right(Kind.RECORD_CHUNK),
            Right(Kind.BUNDLE_STATE),
        ),
        (
            *_ORDERED,
            Right(Kind.ESCALATE),
            Right(Kind.ANSWERED, Of.ANSWERING),
            Right(Kind.PACE, Of.EDGES),
            Right(Kind.ACK),
            Right(Kind.RECORD_ORDER),
            Right(Kind.RECORD_ACK),
            Right(Kind.STATUS, Of.ANSWERING),
            Right(Kind.STATUS, Of.CLOUDS),
        ),
    ),
    "worker": Rights(
        (Right(Kind.OFFER), Right(Kind.RESULT)),
        (Right(Kind.ASSIGN, Of.EDGES), Right(Kind.TASK, Of.EDGES)),
    ),
    "edge": Rights(
        (
            Right(Kind.SCORES),
            Right(Kind.ESCALATE),
            Right(Kind.UPLINK),
            Right(Kind.ANSWER),
            Right(Kind.ANSWERED),
            Right(Kind.PACE),
            Right(Kind.BACKLOG),
            Right(Kind.TASK),
            Right(Kind.ASSIGN),
            Right(Kind.OFFLOAD),
            Right(Kind.TIME_REPLY, Of.MEMBERS),
            Right(Kind.TIME_REPLY, Of.COLLECTORS),
            Right(Kind.LATEST),
            Right(Kind.REACH),
            Right(Kind.BUNDLE_STATE),
        ),
        (
            *_ORDERED,
            Right(Kind.SCORES, Of.ANSWERING),
            Right(Kind.FEATURES, Of.DEVICES),
            Right(Kind.ESCALATE),
            Right(Kind.VERDICT),
            Right(Kind.THRESHOLDS),
            Right(Kind.ACK),
            Right(Kind.OFFER, Of.DEVICES),
            Right(Kind.OFFER, Of.WORKERS),
            Right(Kind.RESULT, Of.WORKERS),
            Right(Kind.TIME_REQUEST, Of.MEMBERS),
            Right(Kind.TIME_REQUEST, Of.COLLECTORS),
            Right(Kind.RECORD_ORDER),
            Right(Kind.STATUS, Of.MEMBERS),
        ),
    ),
    "cloud": Rights(
        (Right(Kind.VERDICT, Of.EVERY), Right(Kind.ACK, Of.EVERY), Right(Kind.BUNDLE_STATE)),
        (Right(Kind.UPLINK, Of.EVERY), *_ORDERED, *_RECORDED),
    ),
    "dashboard": Rights(
        (Right(Kind.THRESHOLDS, Of.EVERY), Right(Kind.ACK, Of.EVERY), Right(Kind.BUNDLE_STATE)),
        (*_ORDERED, *_RECORDED),
    ),
    "trainer": Rights(
        (
            Right(Kind.TRAIN_OFFER),
            Right(Kind.TRAIN_REPLY, Of.TRAINING),
            Right(Kind.TRAIN_REPORT, Of.TRAINING),
            *(Right(kind, Of.TRAINING) for kind in _TO_TRAINERS),
        ),
        (
            Right(Kind.TRAIN_OFFER),
            Right(Kind.TRAIN_COMMAND),
            *(Right(kind) for kind in _TO_TRAINERS),
            Right(Kind.STATUS, Of.TRAINING),
        ),
    ),
    "central": Rights(
        (
            Right(Kind.TRAIN_COMMAND, Of.TRAINING),
            Right(Kind.TRAIN_STATE),
            *(Right(kind, Of.TRAINING) for kind in _TO_TRAINERS),
        ),
        (
            Right(Kind.TRAIN_OFFER, Of.TRAINERS),
            Right(Kind.TRAIN_REPLY),
            Right(Kind.TRAIN_REPORT),
            *(Right(kind) for kind in _TO_TRAINERS),
            Right(Kind.STATUS, Of.TRAINING),
        ),
    ),
    "collector": Rights(
        (
            Right(Kind.RECORD_ORDER),
            Right(Kind.RECORD_ACK, Of.DEVICES),
            Right(Kind.TIME_REQUEST),  # its orders are in the site's time
            Right(Kind.TIME_REPLY, Of.DEVICES),  # where the site has no edge
        ),
        (
            Right(Kind.RECORD_STATE, Of.DEVICES),
            Right(Kind.RECORD_CHUNK, Of.DEVICES),
            Right(Kind.TIME_REPLY),
            Right(Kind.TIME_REQUEST, Of.DEVICES),
            Right(Kind.STATUS, Of.EVERY),
        ),
    ),
    "deployer": Rights(
        (Right(Kind.BUNDLE_ORDER), Right(Kind.BUNDLE_PART, Of.EVERY)),
        (
            Right(Kind.BUNDLE_ORDER),
            Right(Kind.BUNDLE_STATE, Of.EVERY),
            Right(Kind.STATUS, Of.EVERY),
            Right(Kind.ANSWER, Of.EVERY),
        ),
    ),
    "observer": Rights(
        (),
        (
            Right(Kind.STATUS, Of.EVERY),
            Right(Kind.STATS, Of.EVERY),
            Right(Kind.ANSWER, Of.EVERY),
            Right(Kind.LATEST, Of.EVERY),
            Right(Kind.REACH, Of.EVERY),
            Right(Kind.OFFER, Of.EVERY),
            Right(Kind.OFFLOAD, Of.EVERY),  # which outages an edge has observed: ddnn plan
        ),
    ),
    "bridge": Rights(  # what crosses the bridge; its lines are in mosquitto/edge.conf
        (
            Right(Kind.UPLINK, Of.EVERY),
            Right(Kind.ANSWER, Of.EVERY),
            Right(Kind.BACKLOG, Of.EVERY),
            Right(Kind.STATUS, Of.EVERY),
            Right(Kind.STATS, Of.EVERY),
            Right(Kind.OFFLOAD, Of.EVERY),
            Right(Kind.TRAIN_STATE, Of.EVERY),
        ),
        (
            Right(Kind.VERDICT, Of.EVERY),
            Right(Kind.ACK, Of.EVERY),
            Right(Kind.THRESHOLDS, Of.EVERY),
        ),
    ),
}


def list_filters(
    roles: Iterable[Role],
    site: str,
    node: str,
    nodes: Mapping[Role, Sequence[str]] | None = None,
    *,
    is_bridged: bool = False,
) -> Filters:
    """What a node with these roles may write and read.

    site: of the broker; `all`: the broker serves the clouds of every site.
    nodes: the nodes that have each role, which are named one by one; None: any name is accepted.
    is_bridged: clouds that serve every site are connected to another broker.
    """
    roles = tuple(roles)
    write: set[str] = set()
    read: set[str] = set()

    def add(filters: set[str], right: Right, at: str) -> None:
        if right.of is Of.OWN:
            filters.add(topic_filter(right.kind, at, node))
        elif right.of is Of.EVERY or nodes is None:
            filters.add(topic_filter(right.kind, at, EVERY_NODE))
        else:
            names = {name for role in right.of.value for name in nodes.get(role, ())}
            filters.update(topic_filter(right.kind, at, name) for name in names)

    for role in roles:
        served = node if role == "bridge" else "+" if site == EVERYWHERE else site
        for right in TABLE[role].write:
            add(write, right, served)
            if right.of is Of.OWN and right.kind.value.retain and role != "bridge":
                add(read, right, served)  # so that `ddnn forget` finds what the broker retains
        for right in TABLE[role].read:
            add(read, right, served)
        is_heard = Right(Kind.STATUS, Of.CLOUDS) in TABLE[role].read or role == "edge"
        if role == "bridge" or (is_bridged and (is_heard or role == "observer")):
            read.add(topic_filter(Kind.STATUS, EVERYWHERE))
    if roles != ("bridge",):
        own = probe(site, node, "+")
        write.add(own)
        read.add(own)
    if not {*roles} <= {"bridge", "observer", "collector", "deployer"}:
        for right in _PRESENT.write:
            add(write, right, site)
        for right in _PRESENT.read:
            add(read, right, site)
    return Filters(tuple(sorted(write)), tuple(sorted(read)))


def matches(filter_: str, topic: str) -> bool:
    """Whether a filter with the wildcard `+` accepts a topic."""
    wanted, parts = filter_.split("/"), topic.split("/")
    return len(wanted) == len(parts) and all(
        want in ("+", part) for want, part in zip(wanted, parts, strict=True)
    )


def may_write(roles: Iterable[Role], site: str, node: str, topic: Topic) -> bool:
    """Whether a node with these roles may write a topic of whichever node."""
    text = str(topic)
    return any(matches(filter_, text) for filter_ in list_filters(roles, site, node).write)
