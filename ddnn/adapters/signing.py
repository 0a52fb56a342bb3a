"""Ed25519 signatures, by the package cryptography."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ddnn.protocol.commands import Delegation, make_delegation_text
from ddnn.runtime.guard import CommandKey


def verify(key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the raw public key has signed the data. A key that is none has signed nothing."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def get_public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The raw public key, 32 bytes."""
    return key.public_key().public_bytes_raw()


def make_signer(key: Ed25519PrivateKey) -> Callable[[bytes], bytes]:
    return key.sign


def delegate(site_key: Ed25519PrivateKey, delegation: Delegation) -> tuple[bytes, bytes]:
    """The delegation's bytes, and the signature of the site's key."""
    text = msgspec.json.encode(delegation)
    return text, site_key.sign(make_delegation_text(text))


def make_command_key(key: Ed25519PrivateKey, delegation: bytes, signature: bytes) -> CommandKey:
    """What a node signs with."""
    return CommandKey(key.sign, delegation, signature)
