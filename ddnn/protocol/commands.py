"""Signed commands: who may give one, what is signed, and why one is refused. No cryptography.

    sealed command: {"command": …, "number": n, "by": {…}, "by_signature": "…", "signature": "…"}

`command` is the message as it travels without a signature. `by` names the key that signed it: a
delegation, by which the site's key (`by_signature`) lets a node's key speak for this node until a
time. The signature is over topic, number and the command's bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ddnn.errors import RemoteProtocolError
from ddnn.protocol.access import ROLES, Role, may_write
from ddnn.protocol.messages import MAX_COUNT, Id
from ddnn.protocol.topics import Kind, Topic

COMMANDS = frozenset(
    {
        Kind.THRESHOLDS,
        Kind.PACE,
        Kind.ASSIGN,
        Kind.TRAIN_COMMAND,
        Kind.RECORD_ORDER,
        Kind.BUNDLE_ORDER,
    }
)
"""The kinds that change what a node does: a node that knows the site's key wants them signed."""
KEY_BYTES, SIGNATURE_BYTES = 32, 64  # of Ed25519

UNSIGNED, FORGED, REPLAYED = "commands_unsigned", "commands_forged", "commands_replayed"
REFUSALS: dict[str, str] = {
    UNSIGNED: "refused a command without a signature",
    FORGED: "refused a forged command: its signature or its sender's right is not valid",
    REPLAYED: "refused a command that is older than the last one: it was replayed, or the "
    "sender's clock was set back",
}
"""What is counted of refused commands, and what it means."""

_Key = Annotated[str, msgspec.Meta(min_length=43, max_length=44)]  # base64
_Signature = Annotated[str, msgspec.Meta(min_length=86, max_length=88)]
Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]  # seconds since 1970


class Delegation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The site's key says that another key speaks for a node with these roles until a time."""

    site: Id
    node: Id
    roles: Annotated[tuple[Role, ...], msgspec.Meta(max_length=len(ROLES))]
    key: _Key
    until_s: Time


class SealedCommand(msgspec.Struct, frozen=True):
    """A command as it travels when it is signed."""

    command: msgspec.Raw
    number: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
    by: msgspec.Raw
    by_signature: _Signature
    signature: _Signature


class CommandRefusedError(RemoteProtocolError):
    """A command is not obeyed; `count` is the name under which it is counted."""

    def __init__(self, count: str, reason: str) -> None:
        super().__init__(reason)
        self.count = count


def make_delegation_text(delegation: bytes) -> bytes:
    """The bytes that the site's key signs."""
    return b"ddnn delegation 1\n" + delegation


def make_command_text(topic: str, number: int, command: bytes) -> bytes:
    """The bytes that the node's key signs. The topic names the site, the kind and the receiver."""
    return f"ddnn command 1\n{topic}\n{number}\n".encode() + command


def check_right(delegation: Delegation, trusted: tuple[Role, ...], topic: Topic) -> None:
    """Raise CommandRefusedError unless the delegation allows to write the topic.

    trusted: the roles for which the key that signed it is trusted; empty: for all.
    """
    roles = [role for role in delegation.roles if not trusted or role in trusted]
    if not may_write(roles, delegation.site, delegation.node, topic):
        held = ", ".join(delegation.roles) or "none"
        raise CommandRefusedError(
            FORGED,
            f"{delegation.node} of {delegation.site} (roles: {held}) has no right to write {topic}",
        )
