"""Signed commands: what may be obeyed is, everything else is refused and counted by its reason."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ddnn.adapters.signing import delegate, get_public_bytes, make_command_key, verify
from ddnn.protocol.codec import encode
from ddnn.protocol.commands import (
    COMMANDS,
    FORGED,
    REPLAYED,
    UNSIGNED,
    CommandRefusedError,
    Delegation,
)
from ddnn.protocol.drops import DROPS
from ddnn.protocol.messages import Assignment, Thresholds
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.guard import Guard, NumberFile, TrustedKey

NOW_S = 1_800_000_000.0
SITE = Ed25519PrivateKey.generate()
CLOUD = Ed25519PrivateKey.generate()
THRESHOLDS = Topic("home", Kind.THRESHOLDS, "edge")
ASSIGN = Topic("home", Kind.ASSIGN, "edge")
COMMAND = encode(Thresholds("b1", {"local": 0.25}, 7))


def make_sender(
    node: str = "page",
    *roles: Any,
    by: Ed25519PrivateKey = SITE,
    site: str = "home",
    until_s: float = NOW_S + 1e6,
    numbers: Path | None = None,
    now_s: float = NOW_S,
) -> Guard:
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(get_public_bytes(key)).decode()
    text, signature = delegate(
        by, Delegation(site, node, roles or ("dashboard",), public, int(until_s))
    )
    own = make_command_key(key, text, signature)
    return Guard([], verify, own, NumberFile(numbers), clock=lambda: now_s)


def make_receiver(
    numbers: Path | None = None, trusted: tuple[TrustedKey, ...] = (), now_s: float = NOW_S
) -> Guard:
    site = TrustedKey(get_public_bytes(SITE))
    return Guard([site, *trusted], verify, None, NumberFile(numbers), clock=lambda: now_s)


def refuse(receiver: Guard, payload: bytes, topic: Topic = THRESHOLDS) -> str:
    """The name under which the refusal is counted."""
    with pytest.raises(CommandRefusedError) as caught:
        receiver.open(topic, payload)
    assert caught.value.count in DROPS
    return caught.value.count


def test_a_signed_command_is_what_was_sent() -> None:
    receiver = make_receiver()
    sealed = make_sender().seal(THRESHOLDS, COMMAND)
    assert receiver.open(THRESHOLDS, sealed) == COMMAND
    assert receiver.open(THRESHOLDS, sealed) == COMMAND  # a broker repeats what it retains
    assert b'"thresholds":{"local":0.25}' in sealed  # readable with mosquitto_sub


def test_other_kinds_pass_and_without_a_key_everything_does() -> None:
    free = Guard([], verify)
    for kind in Kind:
        topic = Topic("home", kind, "edge" if kind.value.per_node else "")
        assert free.open(topic, b"x") == free.seal(topic, b"x") == b"x"
        if kind not in COMMANDS:
            assert make_receiver().open(topic, b"x") == make_sender().seal(topic, b"x") == b"x"


@pytest.mark.parametrize("payload", [COMMAND, b"", b"{}", b"\xff", b"[" * 9])
def test_an_unsigned_command_is_refused(payload: bytes) -> None:
    assert refuse(make_receiver(), payload) == UNSIGNED


def test_every_altered_byte_is_noticed() -> None:
    """A change is refused, or is of the spaces and names around, which say nothing."""
    receiver = make_receiver()
    sealed = make_sender().seal(THRESHOLDS, COMMAND)
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        try:
            assert receiver.open(THRESHOLDS, bytes(altered)) == COMMAND, altered
        except CommandRefusedError:
            continue


def change(sealed: bytes, **fields: Any) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(sealed), **fields})


def test_the_parts_of_two_commands_do_not_make_a_third() -> None:
    sender, receiver = make_sender(), make_receiver()
    one = msgspec.json.decode(sender.seal(THRESHOLDS, COMMAND))
    other = msgspec.json.decode(make_sender("page2").seal(THRESHOLDS, COMMAND[:-2] + b"8}"))
    names = list(one)
    for mixed in itertools.product((one, other), repeat=len(names)):
        payload = msgspec.json.encode({n: part[n] for n, part in zip(names, mixed, strict=True)})
        same_number = one["number"] == other["number"]
        by = {id(part) for n, part in zip(names, mixed, strict=True) if n not in ("number",)}
        if len(by) == 1 and (same_number or len({id(part) for part in mixed}) == 1):
            continue
        assert refuse(receiver, payload) == FORGED


def test_a_signature_holds_for_one_topic() -> None:
    sealed = make_sender().seal(THRESHOLDS, COMMAND)
    for topic in (Topic("barn", Kind.THRESHOLDS, "edge"), Topic("home", Kind.THRESHOLDS, "edge2")):
        assert refuse(make_receiver(), sealed, topic) == FORGED


@pytest.mark.parametrize(
    ("sender", "topic"),
    [
        (make_sender(by=Ed25519PrivateKey.generate()), THRESHOLDS),  # of another site
        (make_sender(until_s=NOW_S - 1), THRESHOLDS),
        (make_sender(site="barn"), THRESHOLDS),
        (make_sender("cam1", "device", "worker"), THRESHOLDS),
        (make_sender("cam1", "device", "worker"), ASSIGN),
        (make_sender("edge2", "edge"), ASSIGN),  # an edge assigns its own workers only
        (make_sender("page", "dashboard"), ASSIGN),
    ],
)
def test_a_key_speaks_only_for_its_node_its_roles_and_its_time(sender: Guard, topic: Topic) -> None:
    assert refuse(make_receiver(), sender.seal(topic, COMMAND), topic) == FORGED


def test_an_edge_assigns_its_own_workers() -> None:
    assignment = encode(Assignment({"p1": {"worker1": [0]}}))
    sealed = make_sender("edge", "edge").seal(ASSIGN, assignment)
    assert make_receiver().open(ASSIGN, sealed) == assignment


def test_an_older_command_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    sender, numbers = make_sender(), tmp_path / "state" / "edge.commands"
    old, new = sender.seal(THRESHOLDS, COMMAND), sender.seal(THRESHOLDS, COMMAND)
    assert make_receiver(numbers).open(THRESHOLDS, new) == COMMAND
    for receiver in (make_receiver(numbers), make_receiver(numbers)):
        assert refuse(receiver, old) == REPLAYED
        assert receiver.open(THRESHOLDS, new) == COMMAND
    assert make_receiver().open(THRESHOLDS, old) == COMMAND  # a node that knows no newer one


def test_numbers_grow_where_the_clock_is_set_back(tmp_path: Path) -> None:
    receiver, numbers = make_receiver(), tmp_path / "page.commands"
    for now_s in (NOW_S, NOW_S - 1e8, NOW_S - 1e8, NOW_S + 5):
        sealed = make_sender(numbers=numbers, now_s=now_s).seal(THRESHOLDS, COMMAND)
        assert receiver.open(THRESHOLDS, sealed) == COMMAND


@pytest.mark.parametrize("content", [b"", b"{", b'{"taken": {"x": -1}}', b"\0" * 9])
def test_a_damaged_file_of_numbers_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    numbers = tmp_path / "edge.commands"
    numbers.write_bytes(content)
    receiver = make_receiver(numbers)
    assert receiver.open(THRESHOLDS, make_sender().seal(THRESHOLDS, COMMAND)) == COMMAND
    assert NumberFile(numbers).read().taken.keys() == {str(THRESHOLDS)}


def test_the_clouds_key_is_trusted_for_its_dashboards_only() -> None:
    trusted = (TrustedKey(get_public_bytes(CLOUD), ("dashboard",)),)
    page = make_sender("page", "dashboard", by=CLOUD, site="all")
    sealed = page.seal(THRESHOLDS, COMMAND)
    assert make_receiver(trusted=trusted).open(THRESHOLDS, sealed) == COMMAND
    assert refuse(make_receiver(), sealed) == FORGED
    edge = make_sender("edge", "edge", by=CLOUD)
    assert refuse(make_receiver(trusted=trusted), edge.seal(ASSIGN, COMMAND), ASSIGN) == FORGED


def test_the_days_of_the_certificate_are_a_gauge() -> None:
    guard = Guard([], verify, expires_s=NOW_S + 86_400 * 12.5, clock=lambda: NOW_S)
    assert guard.gauges == {"certificate_days": 12.5}
    assert Guard([], verify).gauges == {}
