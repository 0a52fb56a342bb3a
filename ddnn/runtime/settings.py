"""The settings that all nodes have in common."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ddnn.core.ids import require_id
from ddnn.core.text import decode_text
from ddnn.errors import ConfigError
from ddnn.exits.timing import Timing
from ddnn.protocol.access import Role
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.disk import require_writable
from ddnn.runtime.site_identity import Broker, parse_brokers

MAX_SECRET_CHARS = 4096


def read_secret(file: str) -> str:
    """Read the first line of a file that holds a secret; a ConfigError never shows the content."""
    try:
        with Path(file).open("rb") as lines:
            secret = decode_text(lines.readline(MAX_SECRET_CHARS)).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"secret file {file}: {error.__class__.__name__}; is it readable?"
        ) from None
    if not secret:
        raise ConfigError(f"secret file {file} is empty")
    return secret


def is_loopback(host: str) -> bool:
    """Whether the name or address is of this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that device_app, edge_app and cloud_app share."""

    node: Annotated[str, msgspec.Meta(description="Id of this node, as in the bundle's hierarchy.")]
    bundle: Annotated[str, msgspec.Meta(description="Directory of the bundle to run.")] = "bundle"
    site: Annotated[str, msgspec.Meta(description="Id of the site.")] = "home"
    broker_host: Annotated[
        str,
        msgspec.Meta(
            description="Host of the MQTT broker; of several, HOST[:PORT],HOST[:PORT], the next is "
            "tried after a failure."
        ),
    ] = "127.0.0.1"
    broker_port: Annotated[
        int, msgspec.Meta(description="Port of the MQTT broker.", gt=0, lt=65536)
    ] = 1883
    site_file: Annotated[
        str,
        msgspec.Meta(
            description="File that `ddnn site add-node` made: node, site, broker, certificate."
        ),
    ] = ""
    site_passphrase_file: Annotated[
        str, msgspec.Meta(description="File whose first line is the passphrase of the site file.")
    ] = ""
    insecure: Annotated[
        bool,
        msgspec.Meta(description="Connect without TLS to a broker on another machine."),
    ] = False
    broker_user: Annotated[str, msgspec.Meta(description="User name at the broker.")] = ""
    broker_password_file: Annotated[
        str, msgspec.Meta(description="File whose first line is the password at the broker.")
    ] = ""
    mqtt: Annotated[
        Literal["auto", "5", "3.1.1"], msgspec.Meta(description="MQTT version; auto tries 5 first.")
    ] = "auto"
    state: Annotated[
        str,
        msgspec.Meta(
            description="Directory of unconfirmed answers; in the cloud of its SQLite file and key."
        ),
    ] = ".ddnn-state"
    deadline_s: Annotated[
        float,
        msgspec.Meta(description="Time within which a sample is answered.", ge=0.01, le=3600),
    ] = 1.0
    window_s: Annotated[
        float, msgspec.Meta(description="How long a stage waits for members.", ge=0.001, le=3600)
    ] = 0.12
    stats_every_s: Annotated[
        float, msgspec.Meta(description="How often statistics are sent.", ge=0.05, le=3600)
    ] = 5.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], msgspec.Meta(description="How much to log.")
    ] = "info"

    def __post_init__(self) -> None:
        require_id(self.node, "--node")
        require_id(self.site, "--site")
        if self.broker_password_file and not self.broker_user:
            raise ConfigError("--broker-password-file needs --broker-user")
        if self.site_passphrase_file and not self.site_file:
            raise ConfigError("--site-passphrase-file needs --site-file")
        if self.site_file and self.broker_user:
            raise ConfigError("--broker-user with --site-file, whose certificate names the user")
        _ = self.brokers
        self._check_security()
        _ = self.timing
        self._check_site()

    def _check_site(self) -> None:
        if self.site == EVERYWHERE:
            raise ConfigError(f"--site {EVERYWHERE} is for the cloud; name this node's own site")

    def _check_security(self) -> None:
        self.require_security()

    def require_security(self) -> None:
        """Raise ConfigError where the connection is neither secured nor declared insecure."""
        is_here = all(is_loopback(broker.host) for broker in self.brokers)
        if not (self.site_file or self.insecure or is_here):
            raise ConfigError(
                f"--broker-host {self.broker_host} without a site file: anyone in between "
                "could read and forge the messages. Give --site-file NODE.site, which `ddnn site "
                "add-node` makes, or --insecure to accept that in a network that you trust"
            )

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """The broker's addresses, in the order in which they are tried."""
        return parse_brokers(self.broker_host, self.broker_port)

    @property
    def needed_roles(self) -> tuple[Role, ...]:
        """The roles without which the broker would refuse what the node does."""
        return ()

    @property
    def site_passphrase(self) -> str | None:
        """Read from the file at every call; None: the site file has no passphrase."""
        return read_secret(self.site_passphrase_file) if self.site_passphrase_file else None

    @property
    def broker_password(self) -> str | None:
        """Read from the file at every call, because it may change; None: no password."""
        return read_secret(self.broker_password_file) if self.broker_password_file else None

    def check_files(self) -> None:
        """Raise ConfigError where the files that the keys name keep the node from starting."""
        _ = self.broker_password
        require_writable(Path(self.state))

    @property
    def timing(self) -> Timing:
        return Timing(deadline_s=self.deadline_s, window_s=self.window_s)
