"""Site files: everything that a node needs to join a site, in one file to carry to it.

A `.site` file is a tar, without compression, of site.json (ddnn.runtime.site_identity), ca.crt,
node.crt, node.key and, for nodes that give commands, command.key. The keys may be encrypted with a
passphrase. Nothing of it is unpacked to the disk by a name that the file chooses.
"""

from __future__ import annotations

import base64
import io
import os
import secrets
import ssl
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ddnn.adapters.signing import make_command_key, verify
from ddnn.errors import ConfigError
from ddnn.runtime.guard import Guard, NumberFile, TrustedKey
from ddnn.runtime.site_identity import FORMAT, SiteIdentity
from ddnn.runtime.whole_file import write_whole

MAX_FILE_BYTES = 1 << 18
MAX_MEMBER_BYTES = 1 << 16
IDENTITY, CA, CERTIFICATE, KEY, COMMAND_KEY = (
    "site.json",
    "ca.crt",
    "node.crt",
    "node.key",
    "command.key",
)
NEEDED = (IDENTITY, CA, CERTIFICATE, KEY)
REMEDY = "make it again with `ddnn site add-node NODE --renew`, and copy it whole"
FILE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class SiteFile:
    """The content of a site file; the keys are PEM, encrypted if the file has a passphrase."""

    path: Path
    identity: SiteIdentity
    ca: bytes
    certificate: bytes
    key: bytes
    command_key: bytes | None
    passphrase: bytes | None

    def make_context(self) -> ssl.SSLContext:
        """TLS 1.2 or later, with the node's certificate; the broker must have one of the site."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=self.ca.decode("ascii"))
            self._load_certificate(context)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"site file {self.path}: {error}; {REMEDY}") from None
        except OSError as error:
            raise ConfigError(
                f"site file {self.path}: its key cannot be handed to OpenSSL: {error}; is the "
                "directory for temporary files full?"
            ) from None
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        """Give certificate and key to OpenSSL, which reads files only: one in memory, else on the
        disk for that moment, the key encrypted with a passphrase that is nowhere else."""
        passphrase = secrets.token_bytes(32).hex().encode()
        encrypted = self._load_key(self.key).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase),
        )
        pem = self.certificate + encrypted
        if hasattr(os, "memfd_create"):  # Linux
            with os.fdopen(os.memfd_create("node.pem"), "wb") as memory:
                memory.write(pem)
                memory.flush()
                context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}", password=passphrase)
            return
        with tempfile.TemporaryDirectory(prefix="ddnn-") as directory:
            file = Path(directory) / "node.pem"
            file.touch(FILE_MODE)
            file.write_bytes(pem)
            context.load_cert_chain(file, password=passphrase)

    def make_guard(self, numbers: Path | None) -> Guard:
        """The guard of the node. numbers: the file of the commands' numbers."""
        trusted = [TrustedKey(self._decode(one.key), one.roles) for one in self.identity.trusted]
        own = None
        if self.command_key is not None:
            key = self._load_key(self.command_key)
            if not isinstance(key, Ed25519PrivateKey):
                raise ConfigError(f"site file {self.path}: {COMMAND_KEY} is not Ed25519; {REMEDY}")
            own = make_command_key(
                key,
                self.identity.delegation.encode(),
                self._decode(self.identity.delegation_signature),
            )
        file = NumberFile(numbers)
        return Guard(trusted, verify, own, file, float(self.identity.expires_s))

    def _decode(self, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError as error:
            raise ConfigError(
                f"site file {self.path}: a key or a signature is broken: {error}; {REMEDY}"
            ) from None

    def _load_key(self, pem: bytes) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
        try:
            key = serialization.load_pem_private_key(pem, self.passphrase)
        except TypeError:
            has = "an unneeded" if self.passphrase else "no"
            remedy = "leave out" if self.passphrase else "give its passphrase by"
            raise ConfigError(
                f"site file {self.path}: {has} passphrase; {remedy} --site-passphrase-file"
            ) from None
        except ValueError:
            reason = "the passphrase is wrong" if self.passphrase else "a key is broken"
            remedy = "correct --site-passphrase-file" if self.passphrase else REMEDY
            raise ConfigError(f"site file {self.path}: {reason}; {remedy}") from None
        if not isinstance(key, EllipticCurvePrivateKey | Ed25519PrivateKey):
            raise ConfigError(f"site file {self.path}: a key of another kind; {REMEDY}")
        return key


def read_site_file(path: Path, passphrase: str | None = None) -> SiteFile:
    """Read a site file. ConfigError where it is no such file, or is damaged.

    Sizes are checked before anything is read; members other than plain files are refused.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"site file {path}: {error.strerror}; `ddnn site add-node` makes one"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"site file {path}: more than {MAX_FILE_BYTES} bytes; {REMEDY}")
    members = _read_members(path, data)
    missing = [name for name in NEEDED if name not in members]
    if missing:
        raise ConfigError(f"site file {path}: no {missing[0]} in it; {REMEDY}")
    try:
        identity = msgspec.json.decode(members[IDENTITY], type=SiteIdentity)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"site file {path}: {IDENTITY}: {error}; {REMEDY}") from None
    if identity.format != FORMAT:
        raise ConfigError(
            f"site file {path}: format {identity.format}, this version reads {FORMAT}; {REMEDY}"
        )
    return SiteFile(
        path,
        identity,
        members[CA],
        members[CERTIFICATE],
        members[KEY],
        members.get(COMMAND_KEY),
        passphrase.encode() if passphrase else None,
    )


def write_site_file(path: Path, members: Mapping[str, bytes]) -> None:
    """Write the members as a site file that only its owner reads; ConfigError where that fails."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), FILE_MODE
            tar.addfile(info, io.BytesIO(content))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue(), FILE_MODE)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _read_members(path: Path, data: bytes) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for info in tar:
                name = info.name
                is_plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                if not is_plain or info.issparse() or name not in (*NEEDED, COMMAND_KEY):
                    raise ConfigError(
                        f"site file {path}: holds {name[:60]!r}, which is none of its plain files; "
                        f"{REMEDY}"
                    )
                if name in members or not 0 < info.size <= MAX_MEMBER_BYTES:
                    raise ConfigError(
                        f"site file {path}: {name} is there twice, or has {info.size} bytes; "
                        f"{REMEDY}"
                    )
                content = tar.extractfile(info)
                members[name] = content.read(MAX_MEMBER_BYTES) if content is not None else b""
                if len(members[name]) != info.size:
                    raise ConfigError(f"site file {path}: {name} is cut; {REMEDY}")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise ConfigError(f"site file {path}: no tar ({error}); {REMEDY}") from None
    return members
