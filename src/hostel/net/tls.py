"""TLS: credentials in QEMU's directory layout, and a transport that any number of threads may send on.

``tls-creds-x509`` of QEMU names a directory with ``ca-cert.pem``, optionally ``ca-crl.pem``, and ``server-cert.pem``
with ``server-key.pem`` or ``client-cert.pem`` with ``client-key.pem``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from hostel.cause import explain
from hostel.errors import NetworkError
from hostel.net.transport import Bytes, SocketTransport, set_deadline
from hostel.units import KiB

_CIPHERTEXT: Final = 64 * KiB  # bytes received at once
_LINGER: Final = 1.0  # seconds
_PORTION: Final = 256 * KiB  # bytes encrypted before they are sent

# The short names of RFC 4514, and those that GnuTLS uses beyond it.
_ATTRIBUTES: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "EMAIL",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "serialNumber": "serialNumber",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "surname": "surName",
    "userId": "UID",
}
# OpenSSL's reasons, in the words that GnuTLS and so QEMU has for them.
_VERIFY_REASONS: Final = {
    2: "The certificate hasn't got a known issuer",  # unable to get issuer certificate
    10: "The certificate has expired",
    18: "The certificate hasn't got a known issuer",  # self-signed
    19: "The certificate hasn't got a known issuer",  # self-signed in the chain
    20: "The certificate hasn't got a known issuer",  # unable to get local issuer certificate
    21: "The certificate hasn't got a known issuer",  # unable to verify the first certificate
    7: "The certificate hasn't got a known issuer",  # signature failure
    9: "The certificate is not yet activated",
    23: "The certificate is revoked",
}
_NOT_YET: Final = 9
_EXPIRED: Final = 10
_MISMATCHES: Final = frozenset({62, 64})  # host name, IP address


class TlsCredentials:
    """One side's certificates, as QEMU's ``tls-creds-x509`` describes them.

    Args:
        directory: where they are.
        server: for a server; otherwise for a client.
        verify_peer: the peer must show a certificate that our authority has signed, and a server one for its name.
        password: of the private key, where that is encrypted.

    Attributes:
        server: see above.
        verifies_peer: see above.

    Raises:
        NetworkError: a file is missing or useless.
    """

    def __init__(
        self, directory: str, *, server: bool, verify_peer: bool = True, password: bytes | None = None
    ) -> None:
        self.server = server
        self.verifies_peer = verify_peer
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if server:
            # Nobody takes a session up again, and libvirt's client takes a ticket for its welcome that never comes.
            context.num_tickets = 0
        context.check_hostname = verify_peer and not server
        context.verify_mode = ssl.CERT_REQUIRED if verify_peer else ssl.CERT_NONE
        side = "server" if server else "client"
        authority = _path(directory, "ca-cert.pem", required=verify_peer or not server)
        self._authority = os.path.realpath(authority) if authority is not None else None
        revoked = _path(directory, "ca-crl.pem", required=False)
        certificate = _path(directory, f"{side}-cert.pem", required=server)
        key = _path(directory, f"{side}-key.pem", required=server)
        if authority is not None:
            _load(f"Unable to import CA certificate list {authority}", context.load_verify_locations, authority)
        if revoked is not None:
            _load(f"Unable to import certificate revocation list {revoked}", context.load_verify_locations, revoked)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        if certificate is not None and key is not None:
            # An encrypted key without a password must fail, and not be asked for on the terminal.
            secret = password if password is not None else b""
            _load(
                f"Unable to load certificate {certificate} & key {key}",
                context.load_cert_chain,
                certificate,
                key,
                secret,
            )

    def session(self, hostname: str | None = None) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
        """A session that has not begun, with what it reads its peer's bytes from, and writes its own to."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if self.server else hostname or None
        session = self._context.wrap_bio(incoming, outgoing, server_side=self.server, server_hostname=name)
        return session, incoming, outgoing

    def _remedy(self, code: int) -> str | None:
        """What to look at where a certificate is refused for the reason of this number."""
        if code in (_NOT_YET, _EXPIRED):
            import datetime

            now = datetime.datetime.now(datetime.UTC)
            return f"The clock of this host says {now:%Y-%m-%d %H:%M} UTC."
        if self._authority is not None and _VERIFY_REASONS.get(code) == _VERIFY_REASONS[20]:
            return f"It is not signed by an authority in {self._authority}."
        return None

    def wrap(self, sock: socket.socket, *, hostname: str | None = None, deadline: float | None = None) -> TlsTransport:
        """Shake hands on a connected socket.

        Args:
            sock: from then on used by the transport alone.
            hostname: whom a client expects to meet.
            deadline: when the handshake must be over, by the monotonic clock; the socket is blocking afterwards.

        Raises:
            NetworkError: there is no agreement, or the peer is not who it should be.
            TimeoutError: the peer does not answer.
        """
        if self.verifies_peer and not self.server and not hostname:
            raise NetworkError("No hostname for certificate validation", errno=errno.EINVAL)
        transport = TlsTransport(sock, *self.session(hostname))
        try:
            transport.handshake(deadline)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in _MISMATCHES:
                reason = f"Certificate does not match the hostname {hostname}"
                hint: str | None = (
                    "'openssl x509 -noout -ext subjectAltName -in FILE' shows, at the server, for which names it is."
                )
            else:
                reason = _VERIFY_REASONS.get(error.verify_code, f"TLS handshake failed: {error.verify_message}")
                hint = self._remedy(error.verify_code)
            raise NetworkError(reason, errno=errno.EACCES, hint=hint) from None
        except ssl.SSLError as error:
            raise NetworkError(f"TLS handshake failed: {_reason(error)}", errno=errno.EPROTO) from None
        return transport


class TlsTransport:
    """A connection inside TLS; a :class:`hostel.net.transport.Transport`.

    OpenSSL must not be in one session from two threads, but waiting for the network inside it would keep senders from
    sending while a receiver waits: so it works on memory, under a lock that is never held while waiting.
    """

    def __init__(
        self, sock: socket.socket, session: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self.socket = sock
        self._plain = SocketTransport(sock)
        self._session = session
        self._incoming = incoming
        self._outgoing = outgoing
        self._session_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._ciphertext = memoryview(bytearray(_CIPHERTEXT))

    def handshake(self, deadline: float | None) -> None:
        """Shake hands; what goes wrong is told to the peer."""
        while True:
            set_deadline(self, deadline)
            try:
                self._session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._write_out()
                self._read_in()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._refuse()
                raise
        self._write_out()
        self.settimeout(None)

    def _refuse(self) -> None:
        """Tell the peer why there is no session, and wait a moment for it to hear: closing at once would drop that."""
        self._write_out()
        self.socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER
        while time.monotonic() < deadline:
            set_deadline(self, deadline)
            if not self.socket.recv_into(self._ciphertext):
                return

    def peer_name(self) -> str | None:
        """The distinguished name of the peer's certificate, as QEMU compares it; None where it showed none."""
        return distinguished_name(self._session)

    def recv_into(self, buffer: memoryview, /) -> int:
        """See :class:`Transport`.

        Raises:
            NetworkError: what the peer sends is no TLS of this session.
        """
        return self._receive(buffer, 0)

    def recv_now(self, buffer: memoryview, /) -> int | None:
        """See :class:`hostel.net.transport.PatientTransport`.

        Raises:
            NetworkError: as :meth:`recv_into`.
        """
        try:
            return self._receive(buffer, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _receive(self, buffer: memoryview, flags: int) -> int:
        while True:
            with self._session_lock:
                try:
                    return self._session.read(len(buffer), buffer)  # type: ignore[return-value]
                except ssl.SSLWantReadError:
                    answer = self._outgoing.pending > 0
                except ssl.SSLZeroReturnError:
                    return 0
                except ssl.SSLEOFError:
                    # Whoever cuts the connection must not be taken for the peer that ends it.
                    reason = os.strerror(errno.ECONNABORTED)
                    raise NetworkError(f"Cannot read from TLS channel: {reason}", errno=errno.ECONNABORTED) from None
                except ssl.SSLError as error:
                    raise NetworkError(f"Cannot read from TLS channel: {_reason(error)}", errno=errno.EPROTO) from None
            if answer:
                self._write_out(wait=False)
            self._read_in(flags)

    def send(self, parts: Sequence[Bytes], blocked: Callable[[], None] | None = None) -> None:
        """See :class:`hostel.net.transport.PatientTransport`."""
        with self._send_lock:
            for part in parts:
                view = memoryview(part)
                for start in range(0, len(view), _PORTION):
                    with self._session_lock:
                        self._session.write(view[start : start + _PORTION])
                        ciphertext = self._outgoing.read()
                    self._plain.send([ciphertext], blocked)

    def settimeout(self, seconds: float | None) -> None:
        """See :class:`Transport`."""
        self.socket.settimeout(seconds)

    def shutdown(self) -> None:
        """See :class:`Transport`."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def abort(self) -> None:
        """Break off without saying so, as one does with a peer that has no business here."""
        self.socket.close()

    def close(self) -> None:
        """Say that the session ends here, where that is possible at once, and release the socket."""
        with contextlib.suppress(OSError):
            self.socket.setblocking(False)
            with contextlib.suppress(ssl.SSLError), self._session_lock:
                self._session.unwrap()
            self.socket.sendall(self._outgoing.read())
        self.socket.close()

    def _write_out(self, *, wait: bool = True) -> None:
        """Send what the session has to say; without ``wait`` whoever is sending may do it."""
        if not self._send_lock.acquire(blocking=wait):
            return
        try:
            with self._session_lock:
                ciphertext = self._outgoing.read()
            self.socket.sendall(ciphertext)
        finally:
            self._send_lock.release()

    def _read_in(self, flags: int = 0) -> None:
        count = self.socket.recv_into(self._ciphertext, 0, flags)
        with self._session_lock:
            if count:
                self._incoming.write(self._ciphertext[:count])
            else:
                self._incoming.write_eof()


def distinguished_name(session: ssl.SSLObject) -> str | None:
    """The distinguished name of the certificate that a session's peer has shown; None where it showed none."""
    certificate = session.getpeercert()
    if not certificate:
        return None
    subject: Any = certificate["subject"]
    return ",".join(
        "+".join(f"{_ATTRIBUTES.get(kind, kind)}={_escape(value)}" for kind, value in part) for part in subject
    )


def _path(directory: str, name: str, *, required: bool) -> str | None:
    path = os.path.join(directory, name)
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        if not required and error.errno == errno.ENOENT:
            return None
        message = f"Unable to access credentials {path}: {error.strerror}"
        raise NetworkError(message, errno=error.errno, hint=explain(error.errno, path, write=False)) from None


def _load(what: str, load: Callable[..., object], *arguments: object) -> None:
    try:
        load(*arguments)
    except (ssl.SSLError, ValueError) as error:
        raise NetworkError(f"{what}: {_reason(error)}", errno=errno.EINVAL) from None


def _reason(error: Exception) -> str:
    """OpenSSL's reason without its file names and numbers."""
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else str(error)


def _escape(value: str) -> str:
    """A value of a distinguished name, by RFC 4514."""
    text = "".join(f"\\{char}" if char in ',+"\\<>;' else char for char in value)
    if text[:1] in (" ", "#"):
        text = "\\" + text
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(text) > 1 else text
