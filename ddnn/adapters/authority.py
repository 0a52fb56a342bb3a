"""The certificate authority of a site: X.509 by the package cryptography.

Certificates are valid from the year 2000 on: a Raspberry Pi without a battery for its clock may
be years behind when it starts, and must reach the broker to learn the time.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOT_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
CA_DAYS = 3650
CURVE = ec.SECP256R1()
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes
    serial: int
    expires_s: int


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, site: str, now: datetime.datetime) -> Authority:
        """Make a CA for a site."""
        key = ec.generate_private_key(CURVE)
        name = _make_name(site, f"ddnn {site} CA")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_make_key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Authority:
        """Load a CA from PEM. Raises ValueError where it is none."""
        private = serialization.load_pem_private_key(key, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("the CA's key is of another kind")
        return cls(x509.load_pem_x509_certificate(certificate), private)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def expires_s(self) -> int:
        return int(self.certificate.not_valid_after_utc.timestamp())

    def issue(
        self,
        site: str,
        name: str,
        until: datetime.datetime,
        *,
        hosts: Sequence[str] = (),
        passphrase: str | None = None,
    ) -> Issued:
        """Issue a certificate: of a broker, where it has hosts, or of a node."""
        key = ec.generate_private_key(CURVE)
        until = min(until, self.certificate.not_valid_after_utc).replace(microsecond=0)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(_make_name(site, name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_make_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_make_host_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return Issued(
            certificate.public_bytes(serialization.Encoding.PEM),
            encode_key(key, passphrase),
            certificate.serial_number,
            int(until.timestamp()),
        )

    def make_revocation_list(self, serials: Iterable[int], number: int) -> bytes:
        """The CRL, PEM; number: how many there were before it, and it.

        It is valid as long as the CA, from long ago on: a broker whose list has expired, or whose
        clock is behind, would refuse everyone. OpenSSL prefers the list with the later time of
        issue, which follows from the number, whatever the clock of this machine says.
        """
        issued = NOT_BEFORE + datetime.timedelta(seconds=number)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(issued)
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(issued)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def encode_key(key: PrivateKey, passphrase: str | None = None) -> bytes:
    """A private key as PEM, encrypted where there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def load_signing_key(pem: bytes) -> ed25519.Ed25519PrivateKey:
    """The site's signing key. Raises ValueError where it is none."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError("the signing key is not Ed25519")
    return key


def read_expiry_s(certificate: bytes) -> int:
    """When a PEM certificate expires. Raises ValueError where it is none."""
    return int(x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp())


def _make_name(site: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"ddnn {site}"[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )


def _make_host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _make_key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
