"""How a program joins a site: the settings that its site file gives, its TLS and its guard."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddnn.errors import ConfigError
from ddnn.protocol.access import Role
from ddnn.runtime.guard import Guard
from ddnn.runtime.settings import NodeSettings, read_secret

if TYPE_CHECKING:
    from ddnn.adapters.site_file import SiteFile

EXTRA = "certificates and site files need the package cryptography: pip install 'ddnn[site]'"


def require_cryptography() -> None:
    """Raise ConfigError where the package cryptography is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ConfigError(EXTRA) from None


def read_file(path: str, passphrase_file: str) -> SiteFile:
    """Read a site file; ConfigError where it or its passphrase cannot be read."""
    require_cryptography()
    from ddnn.adapters.site_file import read_site_file

    passphrase = read_secret(passphrase_file) if passphrase_file else None
    return read_site_file(Path(path), passphrase)


def read_joined(settings: NodeSettings) -> SiteFile:
    """The site file of a node's settings, read again: it may have been renewed."""
    return read_file(settings.site_file, settings.site_passphrase_file)


def join_site(values: dict[str, Any]) -> None:
    """Take node, site and broker from the site file where the keys do not give them.

    Raises ConfigError where node or site contradict the file: its certificate is of one node.
    """
    path = str(values["site_file"])
    identity = read_file(path, str(values.get("site_passphrase_file", ""))).identity
    for key, own in (("node", identity.node), ("site", identity.site)):
        given = values.setdefault(key, own)
        if given != own:
            raise ConfigError(
                f"--{key} {given} with --site-file {path}, which is of {key} {own}; leave out "
                f"--{key}, or give the file of {given}"
            )
    brokers = identity.brokers
    listed = map(str, brokers) if len(brokers) > 1 else [brokers[0].host]
    values.setdefault("broker_host", ",".join(listed))
    values.setdefault("broker_port", brokers[0].port)


def make_tls(settings: NodeSettings) -> Callable[[], ssl.SSLContext] | None:
    """What reads the certificates of the node's site file; None without one."""
    return (lambda: read_joined(settings).make_context()) if settings.site_file else None


def open_guard(settings: NodeSettings, roles: Sequence[Role] = ()) -> Guard | None:
    """The guard that signs and verifies the node's commands; None without a site file.

    roles: that the node needs besides those of its settings. Raises ConfigError where the file
    lacks one.
    """
    if not settings.site_file:
        return None
    numbers = Path(settings.state) / f"{settings.node}.commands"
    return read_for(settings, roles).make_guard(numbers)


def read_for(settings: NodeSettings, roles: Sequence[Role] = ()) -> SiteFile:
    """The site file, once it has the roles that the node needs."""
    file = read_joined(settings)
    held = file.identity.roles
    missing = [role for role in (*settings.needed_roles, *roles) if role not in held]
    if missing:
        flags = " ".join(f"--role {role}" for role in (*held, *missing))
        raise ConfigError(
            f"site file {settings.site_file}: it has the roles {', '.join(held)}, without "
            f"{', '.join(missing)} that this node needs; ddnn site add-node {settings.node} "
            f"--renew {flags}"
        )
    return file


def check_site_file(settings: NodeSettings) -> str:
    """A line that describes the site file; empty without one.

    Raises ConfigError where TLS or the guard could not be set up with it.
    """
    if not settings.site_file:
        return ""
    file = read_for(settings)
    file.make_context()
    days = file.make_guard(None).gauges["certificate_days"]
    if days < 0:
        raise ConfigError(
            f"site file {settings.site_file}: its certificate has expired {-days:.0f} days ago; "
            f"make a new one: ddnn site add-node {settings.node} --renew"
        )
    roles = ", ".join(file.identity.roles)
    return f"certificate of {file.identity.node} ({roles}), valid for {days:.0f} days"
