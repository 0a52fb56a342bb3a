"""What a site file says about a node, in JSON; its keys and certificates are beside it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ddnn.errors import ConfigError
from ddnn.protocol.access import ROLES, Role
from ddnn.protocol.commands import Time
from ddnn.protocol.messages import Id

FORMAT = 1
SUFFIX = ".site"
DEFAULT_PORT = 8883
MAX_BROKERS = 16
MAX_TRUSTED = 16

Text = Annotated[str, msgspec.Meta(max_length=2000)]
Key = Annotated[str, msgspec.Meta(min_length=43, max_length=44)]
Host = Annotated[str, msgspec.Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+\Z")]
Port = Annotated[int, msgspec.Meta(gt=0, lt=65536)]
Roles = Annotated[tuple[Role, ...], msgspec.Meta(min_length=1, max_length=len(ROLES))]


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a broker listens for TLS."""

    host: Host
    port: Port = DEFAULT_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_broker(text: str, port: int = DEFAULT_PORT, key: str = "--broker") -> Broker:
    """host, host:port, or [address]:port; ConfigError, which names the key, for anything else.

    port: where the text has none.
    """
    host, number = text, str(port)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        number = rest.removeprefix(":") or number
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
    try:
        return msgspec.convert({"host": host, "port": int(number)}, Broker)
    except (ValueError, msgspec.ValidationError):
        raise ConfigError(
            f"{key} {text!r}: expected HOST or HOST:PORT, such as gateway.lan:8883"
        ) from None


def parse_brokers(text: str, port: int, key: str = "--broker-host") -> tuple[Broker, ...]:
    """The brokers of a list with commas; see parse_broker."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_BROKERS:
        raise ConfigError(f"{key} with {len(parts)} addresses; expected at most {MAX_BROKERS}")
    return tuple(parse_broker(part, port, key) for part in parts)


class Trusted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verifying key, raw in base64; of another site for some roles only."""

    key: Key
    roles: Annotated[tuple[Role, ...], msgspec.Meta(max_length=len(ROLES))] = ()


class SiteIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The member `site.json` of a site file.

    delegation, delegation_signature: of a node that gives commands; else empty.
    """

    format: int
    site: Id
    node: Id
    roles: Roles
    brokers: Annotated[tuple[Broker, ...], msgspec.Meta(min_length=1, max_length=MAX_BROKERS)]
    expires_s: Time
    trusted: Annotated[tuple[Trusted, ...], msgspec.Meta(min_length=1, max_length=MAX_TRUSTED)]
    delegation: Text = ""
    delegation_signature: Annotated[str, msgspec.Meta(max_length=88)] = ""
