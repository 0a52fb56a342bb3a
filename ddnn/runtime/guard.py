"""The guard of a node: it signs the node's commands, and refuses those that it must not obey.

A command is refused if it is not signed, if the signature, the delegation or the sender's right is
not valid, or if its number is less than that of the last one with the same topic. The numbers are
kept on disk, so that an older retained command is not obeyed after a restart either. The same
command again is no replay: a broker repeats what it retains at every connect.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from ddnn.protocol.access import Role
from ddnn.protocol.commands import (
    COMMANDS,
    FORGED,
    REPLAYED,
    SIGNATURE_BYTES,
    UNSIGNED,
    CommandRefusedError,
    Delegation,
    SealedCommand,
    check_right,
    make_command_text,
    make_delegation_text,
)
from ddnn.protocol.messages import MAX_COUNT
from ddnn.protocol.topics import MAX_TOPIC_CHARS, Topic
from ddnn.runtime.whole_file import write_whole

log = logging.getLogger(__name__)
DAY_S = 86_400.0
EXPIRES_SOON_DAYS = 30.0
"""A certificate that is valid for less than this is reported."""
MAX_TOPICS = 256  # with commands, of one node
MAX_FILE_BYTES = 1 << 17

Verify = Callable[[bytes, bytes, bytes], bool]
"""(key, signature, data): whether the key has signed the data."""


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that may delegate; of another site only `roles` (empty: all)."""

    key: bytes
    roles: tuple[Role, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandKey:
    """What a node signs with: its key's function, and the delegation with its signature."""

    sign: Callable[[bytes], bytes]
    delegation: bytes
    delegation_signature: bytes


class Numbers(msgspec.Struct):
    """The last number that was sent, and by topic the last that was taken."""

    sent: Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)] = 0
    taken: Annotated[
        dict[
            Annotated[str, msgspec.Meta(max_length=MAX_TOPIC_CHARS)],
            Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)],
        ],
        msgspec.Meta(max_length=MAX_TOPICS),
    ] = {}


class NumberFile:
    """Keeps the numbers on disk: a small JSON file, replaced as a whole. None: in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> Numbers:
        """Read what was written last; no numbers where there is no file, or a damaged one."""
        if self._path is None:
            return Numbers()
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(MAX_FILE_BYTES), type=Numbers)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read: older commands are obeyed once: %s", self._path, error)
        return Numbers()

    def write(self, numbers: Numbers) -> None:
        """Replace the file.

        It is not flushed to the disk: that may take longer than a machine's thread can wait, and
        after a power failure only the commands of the last few seconds could be replayed.
        """
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, msgspec.json.encode(numbers), durable=False)
        except OSError as error:
            log.error("the numbers of commands are not on disk: %s", error)


@dataclass
class Guard:
    """Signs and verifies the commands of one node, in the machine's thread.

    trusted: empty: commands are obeyed without a signature. own: None: this node commands nobody.
    expires_s: wall time at which the node's certificate expires.
    """

    trusted: Sequence[TrustedKey]
    verify: Verify
    own: CommandKey | None = None
    file: NumberFile = field(default_factory=lambda: NumberFile(None))
    expires_s: float | None = None
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._numbers = self.file.read()

    @property
    def gauges(self) -> Mapping[str, float]:
        """For how many days the certificate is valid."""
        if self.expires_s is None:
            return {}
        return {"certificate_days": (self.expires_s - self.clock()) / DAY_S}

    # -------------------------------------------------------------------- sending

    def seal(self, topic: Topic, command: bytes) -> bytes:
        """The signed command; other kinds, and those of a node without a key, unchanged."""
        if self.own is None or topic.kind not in COMMANDS:
            return command
        numbers = self._numbers
        # Numbers grow over restarts, also where the clock was set back or the file was lost.
        numbers.sent = max(int(self.clock() * 1e3), numbers.sent + 1)
        self.file.write(numbers)
        signature = self.own.sign(make_command_text(str(topic), numbers.sent, command))
        return msgspec.json.encode(
            SealedCommand(
                msgspec.Raw(command),
                numbers.sent,
                msgspec.Raw(self.own.delegation),
                _encode(self.own.delegation_signature),
                _encode(signature),
            )
        )

    # ------------------------------------------------------------------ receiving

    def open(self, topic: Topic, payload: bytes) -> bytes:
        """The command of a payload, once it may be obeyed; other kinds unchanged.

        Raises CommandRefusedError.
        """
        if not self.trusted or topic.kind not in COMMANDS:
            return payload
        try:
            sealed = msgspec.json.decode(payload, type=SealedCommand)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CommandRefusedError(UNSIGNED, f"{topic}: no signed command: {error}") from None
        text = str(topic)
        command = bytes(sealed.command)
        delegation = self._check_delegation(topic, sealed)
        signed = make_command_text(text, sealed.number, command)
        if not self.verify(_decode(delegation.key), _decode(sealed.signature), signed):
            raise CommandRefusedError(
                FORGED, f"{topic}: the signature of {delegation.node} is wrong"
            )
        last = self._numbers.taken.get(text, 0)
        if sealed.number < last:
            raise CommandRefusedError(
                REPLAYED,
                f"{topic}: command {sealed.number} of {delegation.node} after {last}",
            )
        if sealed.number > last:
            self._take(text, sealed.number)
        return command

    def _check_delegation(self, topic: Topic, sealed: SealedCommand) -> Delegation:
        """The delegation, once a trusted key has signed it and it allows the command."""
        by = bytes(sealed.by)
        signature, signed = _decode(sealed.by_signature), make_delegation_text(by)
        signer = next((t for t in self.trusted if self.verify(t.key, signature, signed)), None)
        if signer is None:
            raise CommandRefusedError(
                FORGED, f"{topic}: no key of this site has signed its sender's"
            )
        try:
            delegation = msgspec.json.decode(by, type=Delegation)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CommandRefusedError(FORGED, f"{topic}: no delegation: {error}") from None
        if self.clock() > delegation.until_s:
            raise CommandRefusedError(
                FORGED, f"{topic}: the key of {delegation.node} has expired; renew its site file"
            )
        check_right(delegation, signer.roles, topic)
        return delegation

    def _take(self, topic: str, number: int) -> None:
        taken = self._numbers.taken
        taken[topic] = number
        if len(taken) > MAX_TOPICS:
            del taken[next(iter(taken))]
        self.file.write(self._numbers)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    """The bytes of a base64 text; none where it is no such text, which no signature matches."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if len(data) <= SIGNATURE_BYTES else b""
