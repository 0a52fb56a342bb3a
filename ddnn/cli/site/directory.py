"""The directory of a site: its keys, the broker's files, and the record of its nodes.

DIR/site.json       the record
DIR/private/        ca.key, signing.key: anyone who has them can join and command the site
DIR/ca.crt
DIR/broker/         what the broker's machine gets
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ddnn.adapters.authority import Authority, Issued, encode_key, load_signing_key
from ddnn.adapters.signing import delegate, get_public_bytes
from ddnn.adapters.site_file import (
    CA,
    CERTIFICATE,
    COMMAND_KEY,
    IDENTITY,
    KEY,
    SiteFile,
    write_site_file,
)
from ddnn.cli.site import broker_files
from ddnn.cli.site.record import BridgeRecord, NodeRecord, SiteRecord
from ddnn.errors import ConfigError
from ddnn.protocol.access import TABLE, Role
from ddnn.protocol.commands import COMMANDS, Delegation
from ddnn.runtime.file_lock import lock_file
from ddnn.runtime.new_directory import require_writable
from ddnn.runtime.site_identity import FORMAT, Broker, SiteIdentity
from ddnn.runtime.whole_file import write_whole

RECORD, PRIVATE, BROKER = "site.json", "private", "broker"
PUBLIC_MODE, PRIVATE_MODE = 0o644, 0o600
CA_KEY, SIGNING_KEY, LOCK = "ca.key", "signing.key", "lock"
MAX_RECORD_BYTES = 1 << 24
WAIT_S = 30.0  # for another command
LOCAL_HOSTS = ("localhost", "127.0.0.1")

Loaded = TypeVar("Loaded")


class SiteDirectory:
    """A site's directory, opened and locked by `open_site`."""

    def __init__(self, path: Path, record: SiteRecord) -> None:
        self.path, self.record = path, record

    @property
    def broker(self) -> Path:
        """The directory that the broker's machine gets."""
        return self.path / BROKER

    def add(
        self,
        node: str,
        roles: Sequence[Role],
        out: Path,
        *,
        until: datetime.datetime,
        passphrase: str | None = None,
        is_renewed: bool = False,
    ) -> NodeRecord:
        """Add a node, or renew it, and write its site file."""
        before = self.record.find(node)
        is_there = before is not None and not before.revoked
        if is_there and not is_renewed:
            raise ConfigError(
                f"{node} is a node of {self.record.site} already; `ddnn site add-node {node} "
                "--renew` makes a new file for it, `ddnn site revoke` takes its rights away"
            )
        if before is None and is_renewed:
            raise ConfigError(f"{node} is no node of {self.record.site}; leave out --renew")
        if before is not None and is_there and not roles:
            roles = before.roles
        if not roles:
            raise ConfigError(f"{node}: no role; expected --role {'|'.join(TABLE)}")
        if "bridge" in roles and len(set(roles)) > 1:
            raise ConfigError("--role bridge goes with no other role: its id is a site's")
        self._require_broker_files()
        require_writable(out)
        authority = self.load_authority()
        issued = authority.issue(self.record.site, node, until, passphrase=passphrase)
        serials = before.serials if before is not None and is_there else ()
        added = NodeRecord(
            node,
            tuple(dict.fromkeys(roles)),
            (*serials, f"{issued.serial:x}"),
            int(datetime.datetime.now(datetime.UTC).timestamp()),
            issued.expires_s,
        )
        self.record = self.record.with_node(added)
        self.write()  # first: a certificate that is in no record could not be revoked
        self._write_node(out, added, issued, authority, passphrase)
        return added

    def revoke(self, node: str) -> NodeRecord:
        """Take a node's rights away: its certificates are revoked, it has no access any more."""
        record = self.record.find(node)
        if record is None:
            raise ConfigError(f"{node} is no node of {self.record.site}; `ddnn site list`")
        self._require_broker_files()
        revoked = msgspec.structs.replace(record, revoked=True)
        self.record = msgspec.structs.replace(
            self.record.with_node(revoked),
            revoked=tuple(dict.fromkeys([*self.record.revoked, *record.serials])),
        )
        self.write(revoked=True)
        return revoked

    def renew_broker(self, until: datetime.datetime) -> None:
        """Issue the broker's certificate, for all of its hosts."""
        hosts = dict.fromkeys([*(broker.host for broker in self.record.brokers), *LOCAL_HOSTS])
        issued = self.load_authority().issue(
            self.record.site, self.record.brokers[0].host, until, hosts=tuple(hosts)
        )
        write_whole(self.broker / broker_files.CERTIFICATE, issued.certificate, PUBLIC_MODE)
        write_whole(self.broker / broker_files.KEY, issued.key, PRIVATE_MODE)
        self.record = msgspec.structs.replace(self.record, broker_expires_s=issued.expires_s)
        self.write()

    def join_cloud(self, file: SiteFile) -> BridgeRecord:
        """Connect the broker to the cloud's, with a site file of role `bridge` of the cloud's."""
        identity = file.identity
        if identity.roles != ("bridge",) or identity.node != self.record.site:
            raise ConfigError(
                f"{file.path} is of {identity.node} ({', '.join(identity.roles)}); expected one "
                f"that `ddnn site add-node {self.record.site} --role bridge` made in the cloud's "
                "directory"
            )
        if b"ENCRYPTED" in file.key:
            raise ConfigError(f"{file.path} has a passphrase, which a broker cannot be given")
        write_whole(self.broker / broker_files.BRIDGE_CA, file.ca, PUBLIC_MODE)
        write_whole(self.broker / broker_files.BRIDGE_CERTIFICATE, file.certificate, PUBLIC_MODE)
        write_whole(self.broker / broker_files.BRIDGE_KEY, file.key, PRIVATE_MODE)
        keys = tuple(trusted.key for trusted in identity.trusted if not trusted.roles)
        bridge = BridgeRecord(identity.node, identity.brokers[0], identity.expires_s, keys)
        self.record = msgspec.structs.replace(self.record, bridge=bridge)
        self.write()
        return bridge

    def load_authority(self) -> Authority:
        return load_key_files(
            self.path, lambda: Authority.load(self._read(CA), self._read(f"{PRIVATE}/{CA_KEY}"))
        )

    def load_signing_key(self) -> Ed25519PrivateKey:
        return load_key_files(
            self.path, lambda: load_signing_key(self._read(f"{PRIVATE}/{SIGNING_KEY}"))
        )

    def write(self, *, revoked: bool = False) -> None:
        """Write the record and the broker's files. revoked: also a new revocation list."""
        if revoked:
            record = self.record
            self.record = msgspec.structs.replace(record, revocations=record.revocations + 1)
            pem = self.load_authority().make_revocation_list(
                [int(serial, 16) for serial in record.revoked],
                self.record.revocations,
            )
            write_whole(self.broker / broker_files.REVOKED, pem, PUBLIC_MODE)
        configuration = broker_files.format_configuration(self.record)
        write_whole(self.broker / broker_files.CONFIGURATION, configuration.encode(), PUBLIC_MODE)
        write_whole(
            self.broker / broker_files.ACCESS,
            broker_files.format_access(self.record).encode(),
            PRIVATE_MODE,
        )
        text = msgspec.json.format(msgspec.json.encode(self.record), indent=2)
        write_whole(self.path / RECORD, text, PRIVATE_MODE)

    def _require_broker_files(self) -> None:
        """ConfigError where the broker's directory was taken away."""
        needed = (
            broker_files.CA,
            broker_files.CERTIFICATE,
            broker_files.KEY,
            broker_files.REVOKED,
        )
        if missing := [name for name in needed if not (self.broker / name).is_file()]:
            raise ConfigError(
                f"{self.broker} has no {', '.join(missing)}: copy the directory to the broker, and "
                "leave it here, where it is written again; restore it from the broker"
            )

    def _write_node(
        self,
        out: Path,
        node: NodeRecord,
        issued: Issued,
        authority: Authority,
        passphrase: str | None,
    ) -> None:
        signing_key = self.load_signing_key()
        own = base64.b64encode(get_public_bytes(signing_key)).decode()
        members = {CA: authority.pem, CERTIFICATE: issued.certificate, KEY: issued.key}
        delegation, signature = b"", b""
        if any(right.kind in COMMANDS for role in node.roles for right in TABLE[role].write):
            key = Ed25519PrivateKey.generate()
            public = base64.b64encode(get_public_bytes(key)).decode()
            delegation, signature = delegate(
                signing_key,
                Delegation(self.record.site, node.node, node.roles, public, issued.expires_s),
            )
            members[COMMAND_KEY] = encode_key(key, passphrase)
        identity = SiteIdentity(
            FORMAT,
            self.record.site,
            node.node,
            node.roles,
            self.record.brokers,
            issued.expires_s,
            self.record.list_trusted(own),
            delegation.decode(),
            base64.b64encode(signature).decode(),
        )
        text = msgspec.json.format(msgspec.json.encode(identity), indent=2)
        write_site_file(out, {IDENTITY: text, **members})

    def _read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


def create_site(
    path: Path,
    site: str,
    brokers: Sequence[Broker],
    *,
    installed_at: str,
    home_assistant: str,
    until: datetime.datetime,
) -> SiteDirectory:
    """Make a site's directory. ConfigError where it holds one already."""
    if (path / RECORD).exists() or (path / PRIVATE).exists():
        raise ConfigError(
            f"{path} holds a site already; its keys are kept. Choose another directory, or remove "
            "it: then every node needs a new file"
        )
    now = datetime.datetime.now(datetime.UTC)
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        (path / BROKER).mkdir(exist_ok=True)
        (path / PRIVATE).mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; choose another directory") from None
    authority = Authority.create(site, now)
    write_whole(path / PRIVATE / CA_KEY, encode_key(authority.key), PRIVATE_MODE)
    write_whole(
        path / PRIVATE / SIGNING_KEY, encode_key(Ed25519PrivateKey.generate()), PRIVATE_MODE
    )
    write_whole(path / CA, authority.pem, PUBLIC_MODE)
    write_whole(path / BROKER / broker_files.CA, authority.pem, PUBLIC_MODE)
    record = SiteRecord(FORMAT, site, tuple(brokers), installed_at, home_assistant, 0)
    directory = SiteDirectory(path, record)
    directory.renew_broker(until)
    directory.write(revoked=True)
    return directory


@contextmanager
def open_site(path: Path) -> Iterator[SiteDirectory]:
    """Open a site's directory, locked against other commands; ConfigError where there is none."""
    if not (path / RECORD).is_file():
        raise ConfigError(
            f"{path} holds no site; name its directory by --dir, or make one: `ddnn site init`"
        )
    try:
        with lock_file(path / PRIVATE / LOCK, WAIT_S):
            with (path / RECORD).open("rb") as file:
                record = msgspec.json.decode(file.read(MAX_RECORD_BYTES), type=SiteRecord)
            yield SiteDirectory(path, record)
    except TimeoutError:
        raise ConfigError(
            f"another command uses {path} for over {WAIT_S:g} s; try again once it has ended"
        ) from None
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path / RECORD}: {error}; restore it from a backup") from None


def load_key_files(path: Path, load: Callable[[], Loaded]) -> Loaded:
    """What `load` reads; ConfigError where a file is missing or broken."""
    try:
        return load()
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: its keys cannot be read ({error}); restore the directory from a backup"
        ) from None
