"""Every topic string is built and parsed here; one table says how each kind travels.

ddnn/v1/<site>/<branch>[/<id>][/<leaf>]
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from ddnn.core.ids import is_id
from ddnn.errors import RemoteProtocolError
from ddnn.protocol.messages import (
    Answer,
    AnswerAck,
    Answered,
    Assignment,
    Backlog,
    Escalate,
    Features,
    Message,
    PaceCommand,
    Result,
    Scores,
    Stats,
    Status,
    Task,
    Thresholds,
    TimeReply,
    TimeRequest,
    WorkerOffer,
)
from ddnn.protocol.node_messages import CloudReach, Latest, NameClaim, NodeMessage
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.record_messages import (
    RecordAck,
    RecordChunk,
    RecordMessage,
    RecordOrder,
    RecordState,
)
from ddnn.protocol.rollout_messages import (
    BundleOrder,
    BundlePart,
    BundleState,
    RolloutMessage,
)
from ddnn.protocol.train_messages import (
    TrainCommand,
    TrainFetch,
    TrainFlow,
    TrainMessage,
    TrainOffer,
    TrainPart,
    TrainReply,
    TrainReport,
    TrainState,
)

AnyMessage = Message | NodeMessage | OffloadState | RecordMessage | RolloutMessage | TrainMessage

ROOT = "ddnn/v1"
EVERYWHERE = "all"  # the site at which a node that serves every site announces itself
MAX_TOPIC_CHARS = 256
PROBE = b"\0ddnn doctor"  # a payload that shows whether a topic can be used; nodes pass over it


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of message travels."""

    branch: str
    message: type[AnyMessage]
    qos: int = 0
    retain: bool = False
    per_node: bool = True
    leaf: str = ""


class Kind(Enum):
    """The kinds of messages. Data that has a deadline is QoS 0: a second copy comes too late."""

    STATUS = Rule("node", Status, qos=1, retain=True, leaf="status")
    STATS = Rule("node", Stats, leaf="stats")
    CLAIM = Rule("node", NameClaim, qos=1, leaf="claim")  # of the processes of one name
    SCORES = Rule("scores", Scores)  # <device> or <edge>: exit scores
    FEATURES = Rule("features", Features)  # <device>: for its edge
    ESCALATE = Rule("escalate", Escalate, per_node=False)
    UPLINK = Rule("uplink", Features)  # <edge>: features for the cloud
    VERDICT = Rule("verdict", Scores)  # <edge>: the cloud's scores, for the edge that asked
    ANSWERED = Rule("answered", Answered)  # <node>: who knows of the answers, for the devices
    ANSWER = Rule("answer", Answer)  # <node>: who answered
    LATEST = Rule("latest", Latest)  # <node>: the same once a second, for Home Assistant
    REACH = Rule("node", CloudReach, qos=1, retain=True, leaf="cloud")
    BACKLOG = Rule("backlog", Backlog, qos=1)  # <node>: what was not confirmed
    ACK = Rule("ack", AnswerAck, qos=1)  # <node>: answers that the store holds
    THRESHOLDS = Rule("node", Thresholds, qos=1, retain=True, leaf="cmd/thresholds")
    PACE = Rule("node", PaceCommand, qos=1, retain=True, leaf="pace")  # <edge>: which ticks to take
    TASK = Rule("task", Task)  # <group>: for all of its workers; the group is the sharing edge
    RESULT = Rule("result", Result)  # <worker>
    OFFER = Rule("node", WorkerOffer, qos=1, retain=True, leaf="offer")
    ASSIGN = Rule("assign", Assignment, qos=1, retain=True)  # <group>
    OFFLOAD = Rule("offload", OffloadState)  # <group>
    TIME_REQUEST = Rule("time", TimeRequest)  # <device>
    TIME_REPLY = Rule("time", TimeReply, leaf="reply")  # <device>
    # Training together. The node is the one that gets the message, except for the offer.
    TRAIN_OFFER = Rule("node", TrainOffer, qos=1, retain=True, leaf="train")
    TRAIN_COMMAND = Rule("train", TrainCommand, qos=1, leaf="command")
    TRAIN_REPLY = Rule("train", TrainReply, qos=1, leaf="reply")
    TRAIN_REPORT = Rule("train", TrainReport, leaf="report")
    TRAIN_FLOW = Rule("train", TrainFlow, leaf="flow")
    TRAIN_FETCH = Rule("train", TrainFetch, leaf="fetch")
    TRAIN_PART = Rule("train", TrainPart, leaf="part")
    TRAIN_STATE = Rule("train", TrainState, leaf="state")  # <central node>
    # Recordings. The node is the device.
    RECORD_ORDER = Rule("recording", RecordOrder, qos=1, per_node=False)
    RECORD_STATE = Rule("record", RecordState, leaf="state")
    RECORD_CHUNK = Rule("record", RecordChunk)
    RECORD_ACK = Rule("record", RecordAck, leaf="ack")
    # Roll-outs. The node of a part is its number.
    BUNDLE_ORDER = Rule("bundle", BundleOrder, qos=1, retain=True, per_node=False)
    BUNDLE_PART = Rule("bundle", BundlePart, qos=1, retain=True, leaf="part")
    BUNDLE_STATE = Rule("node", BundleState, qos=1, retain=True, leaf="bundle")  # <node>


class Topic(NamedTuple):
    """A parsed topic; `node` is empty where the kind has one topic per site."""

    site: str
    kind: Kind
    node: str = ""

    def __str__(self) -> str:
        return _join(self.site, self.kind.value, self.node)


def topic_filter(kind: Kind, site: str = "+", node: str = "+") -> str:
    """The subscription filter for one kind; '+' matches any site or node."""
    return _join(site, kind.value, node)


def share_filter(filter_: str, group: str) -> str:
    """The filter as a shared subscription: each message goes to one subscriber of the group."""
    return f"$share/{group}/{filter_}" if group else filter_


def find_qos(filter_: str) -> int:
    """The quality of service of a filter: that of its kind, 1 of what is none of ours. A cluster of
    brokers keeps no queue for a client that only has filters of 0."""
    parts = filter_.split("/")
    parts = parts[2:] if parts[0] == "$share" else parts
    kind = _KINDS.get((parts[3], len(parts) > 4, tuple(parts[5:]))) if len(parts) > 3 else None
    return 1 if kind is None else kind.value.qos


def probe(site: str, node: str, name: str) -> str:
    """A topic below a node's own that carries no message of ours: `parse` refuses it, and no
    machine subscribes to it."""
    return f"{ROOT}/{site}/node/{node}/probe/{name}"


def node_filter(site: str, node: str) -> str:
    """Everything that a node says about itself, and the commands to it."""
    return f"{ROOT}/{site}/node/{node}/#"


def presence_filters(site: str) -> list[str]:
    """Who is there: the nodes of the site, and those that serve every site."""
    return [topic_filter(Kind.STATUS, site), topic_filter(Kind.STATUS, EVERYWHERE)]


@lru_cache(maxsize=4096)  # a site has few topics, and each message names one
def parse(text: str) -> Topic:
    """Topic of a received message; RemoteProtocolError where it is none of ours."""
    parts = text.split("/") if len(text) <= MAX_TOPIC_CHARS else []
    if len(parts) >= 4 and parts[0] == "ddnn" and parts[1] == "v1" and is_id(parts[2]):
        kind = _KINDS.get((parts[3], len(parts) > 4, tuple(parts[5:])))
        if kind is not None and not kind.value.per_node:
            return Topic(parts[2], kind)
        if kind is not None and is_id(parts[4]):
            return Topic(parts[2], kind, parts[4])
    raise RemoteProtocolError(f"topic {text[:80]!r} is none of {ROOT}/<site>/…")


def _join(site: str, rule: Rule, node: str) -> str:
    text = f"{ROOT}/{site}/{rule.branch}"
    if rule.per_node:
        text += f"/{node}"
    return f"{text}/{rule.leaf}" if rule.leaf else text


_KINDS = {
    (k.value.branch, k.value.per_node, tuple(filter(None, k.value.leaf.split("/")))): k
    for k in Kind
}
