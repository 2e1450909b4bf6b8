"""An authority and certificates for a test, made with the library that we use for LUKS anyway."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_FIRST = datetime.datetime(2020, 1, 1)
_LAST = datetime.datetime(2099, 1, 1)
_SIGNING = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def lock(key: Path, passphrase: str) -> None:
    """Encrypt a key where it lies."""
    found = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(passphrase.encode())
    key.write_bytes(found.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))


class Authority:
    """Signs certificates, with all that Python 3.13 asks for where it is strict."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._own = self._signed(self._name, self._key, [x509.BasicConstraints(ca=True, path_length=None), _SIGNING])

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list[x509.ExtensionType]) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_FIRST)
            .not_valid_after(_LAST)
        )
        whose = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        by_whom = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        for extension in (*extensions, whose, by_whom):
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def server(self, directory: Path) -> Path:
        """A server's files, under QEMU's names."""
        directory.mkdir(parents=True)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        self._write(directory, "ca-cert.pem", "server-cert.pem", "server-key.pem", "localhost", [names], server=True)
        return directory

    def peer(self, directory: Path) -> None:
        """A client's files, under QEMU's names, beside a server's."""
        self._write(directory, "ca-cert.pem", "client-cert.pem", "client-key.pem", "peer", [], server=False)

    def client(self, directory: Path, name: str) -> Path:
        """A client's files, under libvirt's names."""
        directory.mkdir(parents=True)
        self._write(directory, "cacert.pem", "clientcert.pem", "clientkey.pem", name, [], server=False)
        return directory

    def _write(
        self,
        directory: Path,
        authority: str,
        certificate: str,
        secret: str,
        name: str,
        extensions: list[x509.ExtensionType],
        *,
        server: bool,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        use = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hostel"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        (directory / authority).write_bytes(self._own)
        (directory / certificate).write_bytes(self._signed(subject, key, [*extensions, x509.ExtendedKeyUsage([use])]))
        (directory / secret).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
