"""A connection to one file by SSH: who the host is, who we are, and the file; by paramiko."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.block.protocols.ssh.session import Sftp
from hostel.errors import BlockError, UnsupportedFeature
from hostel.wire.sftp.protocol import OpenFlag

if TYPE_CHECKING:
    import paramiko

_TIMEOUT: Final = 60.0  # seconds for any answer
_KNOWN_HOSTS: Final = "~/.ssh/known_hosts"
_ALL_KNOWN_HOSTS: Final = "/etc/ssh/ssh_known_hosts"
_CONFIGURATION: Final = "~/.ssh/config"
USUAL_PORT: Final = 22
_NEW_FILE: Final = 0o644  # its permissions, as QEMU asks for them


class HostKeyCheck(NamedTuple):
    """How the host proves who it is.

    Attributes:
        mode: ``known_hosts``, ``hash`` or ``none``.
        type: ``md5``, ``sha1`` or ``sha256``, of a hash.
        hash: hexadecimal, with or without colons.
    """

    mode: str = "known_hosts"
    type: str = ""
    hash: str = ""


class Place(NamedTuple):
    """Which file is meant, and whose."""

    host: str
    port: int
    user: str
    path: str
    check: HostKeyCheck


class RemoteFile:
    """An open file on another host. One thread at a time.

    Attributes:
        size: bytes.
    """

    def __init__(self, place: Place, *, writable: bool, creating: bool) -> None:
        try:
            import paramiko
        except ImportError:
            raise UnsupportedFeature(
                "ssh needs paramiko", hint="Install the Python package paramiko, or hostel[ssh]."
            ) from None
        self._paramiko = paramiko
        self._place = place
        with contextlib.ExitStack() as opened:
            self._transport = self._connect()
            opened.callback(self._transport.close)
            self._check_host()
            self._log_in()
            self._sftp = self._open_sftp()
            self.can_sync = True
            self._handle = self._open(writable=writable, creating=creating)
            self.size = self._status_size()
            self._closing = opened.pop_all()

    def _connect(self) -> paramiko.Transport:
        host, port = self._place.host, self._place.port
        try:
            connected = socket.create_connection((host, port), _TIMEOUT)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BlockError(f"Failed to connect to '{host}:{port}': {reason}", errno=errno.EIO) from None
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = self._paramiko.Transport(connected)
        except BaseException:
            connected.close()
            raise
        try:
            self._prefer_known_keys(transport)
            transport.start_client(timeout=_TIMEOUT)
        except (self._paramiko.SSHException, OSError, EOFError) as error:
            transport.close()
            raise BlockError(f"failed to establish SSH session: {error}", errno=errno.EINVAL) from None
        return transport

    def _prefer_known_keys(self, transport: paramiko.Transport) -> None:
        """Ask for a key of the kind that is known, where one is: a host may have several."""
        if self._place.check.mode != "known_hosts":
            return
        with contextlib.suppress(BlockError):
            known = self._known_keys() or {}
            options = transport.get_security_options()
            names = {name for kind in known for name in self._algorithms(kind)}
            first = [kind for kind in options.key_types if kind in names]
            if first:
                options.key_types = tuple(first + [kind for kind in options.key_types if kind not in first])

    def _algorithms(self, kind: str) -> tuple[str, ...]:
        return ("rsa-sha2-512", "rsa-sha2-256", kind) if kind == "ssh-rsa" else (kind,)

    def _known_keys(self) -> Any:
        """The keys that are known of the host by their kinds; None where there is none.

        Raises:
            BlockError: there is no file of known hosts.
        """
        keys = self._paramiko.HostKeys()
        found = False
        for name in (os.path.expanduser(_KNOWN_HOSTS), _ALL_KNOWN_HOSTS):
            with contextlib.suppress(OSError):
                keys.load(name)
                found = True
        if not found:
            raise BlockError("known_hosts file not found", errno=errno.ENOENT)
        host, port = self._place.host, self._place.port
        return keys.lookup(host if port == USUAL_PORT else f"[{host}]:{port}")

    def _check_host(self) -> None:
        """Find out whether the host is the one that is meant.

        Raises:
            BlockError: it is not; the text is QEMU's.
        """
        check = self._place.check
        if check.mode == "none":
            return
        key = self._transport.get_remote_server_key()
        if check.mode == "hash":
            self._check_hash(key)
            return
        known = self._known_keys()
        if known is None:
            raise BlockError(
                "no host key was found in known_hosts",
                errno=errno.EINVAL,
                hint=f"Log in once with 'ssh {self._place.host}', which asks whether the key is the right one.",
            )
        kind = key.get_name()
        if kind not in known:
            raise BlockError("host key for this server not found, another type exists", errno=errno.EINVAL)
        if not hmac.compare_digest(known[kind].asbytes(), key.asbytes()):
            raise BlockError(
                f"host key ({kind} key with fingerprint {_fingerprint(key)}) does not match the one in known_hosts; "
                "this may be a possible attack",
                errno=errno.EINVAL,
            )

    def _check_hash(self, key: paramiko.PKey) -> None:
        check = self._place.check
        found = _digest(key, check.type)
        if not hmac.compare_digest(found, check.hash.replace(":", "").lower()):
            raise BlockError(
                f"remote host {key.get_name()} key fingerprint '{check.type}:{found}' does not match host_key_check "
                f"'{check.type}:{check.hash}'",
                errno=errno.EPERM,
            )

    def _log_in(self) -> None:
        """Show the keys of the user's agent, and those that lie in the user's folder.

        Raises:
            BlockError: none is taken; the text is QEMU's.
        """
        ssh = self._paramiko
        user = self._place.user
        try:
            with contextlib.suppress(ssh.BadAuthenticationType):
                self._transport.auth_none(user)
                return
            agent = ssh.Agent()
            try:
                for held in agent.get_keys():
                    if self._take(user, held):
                        return
            finally:
                agent.close()
            for name in self._identities():
                with contextlib.suppress(ssh.SSHException, OSError, ValueError):
                    key = ssh.PKey.from_path(name)
                    if self._take(user, key):
                        return
        except (ssh.SSHException, OSError, EOFError) as error:
            raise BlockError(
                f"failed to authenticate using publickey authentication: {error}", errno=errno.EINVAL
            ) from None
        raise BlockError(
            "failed to authenticate using publickey authentication and the identities held by your ssh-agent",
            errno=errno.EPERM,
            hint=f"Make sure that 'ssh {user}@{self._place.host}' asks for no password.",
        )

    def _take(self, user: str, key: paramiko.PKey) -> bool:
        """Whether the host takes a key."""
        try:
            left = self._transport.auth_publickey(user, key)
        except self._paramiko.AuthenticationException:
            return False
        return not left

    def _identities(self) -> list[str]:
        """The files of the user's keys: those that ssh is configured to use for the host, or the usual ones."""
        configuration = self._paramiko.SSHConfig()
        with contextlib.suppress(OSError), open(os.path.expanduser(_CONFIGURATION), encoding="utf-8") as stream:
            configuration.parse(stream)
        told: str | list[str] = configuration.lookup(self._place.host).get("identityfile", [])
        found = [told] if isinstance(told, str) else told
        usual = [f"~/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa")]
        return [os.path.expanduser(name) for name in [*found, *usual]]

    def _open_sftp(self) -> Sftp:
        try:
            channel = self._transport.open_session(timeout=_TIMEOUT)
            channel.settimeout(_TIMEOUT)
            channel.invoke_subsystem("sftp")
            return Sftp(channel)
        except (self._paramiko.SSHException, OSError, EOFError) as error:
            raise BlockError(f"failed to create sftp handle: {error}", errno=errno.EINVAL) from None

    def _open(self, *, writable: bool, creating: bool) -> bytes:
        path = self._place.path
        flags = OpenFlag.READ | OpenFlag.WRITE if writable or creating else OpenFlag.READ
        if creating:
            flags |= OpenFlag.CREAT | OpenFlag.TRUNC
        try:
            return self._sftp.open(path, flags, _NEW_FILE if creating else None)
        except BlockError as error:
            raise BlockError(f"failed to open remote file '{path}': {error}", errno=errno.EINVAL) from None

    def _status_size(self) -> int:
        try:
            return self._sftp.size(self._handle)
        except BlockError as error:
            raise BlockError(f"failed to read file attributes: {error}", errno=errno.EINVAL) from None

    def read(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from ``offset``, all of it within the file; many requests are under way at once.

        Raises:
            BlockError: the host refuses, or is gone.
        """
        with _reported("read"):
            self._sftp.read(self._handle, offset, buf)

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``; returns when the host has said that it has it.

        Raises:
            BlockError: the host refuses, or is gone.
        """
        with _reported("write"):
            self._sftp.write(self._handle, offset, data)
        self.size = max(self.size, offset + len(data))

    def truncate(self, size: int) -> None:
        """Set the file's size.

        Raises:
            BlockError: the host refuses.
        """
        with _reported("truncate"):
            self._sftp.set_size(self._handle, size)
        self.size = size

    def sync(self) -> bool:
        """Have the host store what was written; False where it has no way to be asked for that.

        Raises:
            BlockError: it failed.
        """
        self.can_sync = self._sftp.can_sync
        if self.can_sync:
            with _reported("flush"):
                self._sftp.sync(self._handle)
        return self.can_sync

    def close(self) -> None:
        """Close the file and the connection.

        Raises:
            BlockError: the host says that it failed.
        """
        with self._closing, _reported("close"):
            self._sftp.close(self._handle)


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """Say with an error what it was that failed."""
    try:
        yield
    except BlockError as error:
        raise BlockError(f"{what} failed: {error}", errno=error.errno) from None


def _digest(key: paramiko.PKey, kind: str) -> str:
    return hashlib.new(kind, key.asbytes(), usedforsecurity=False).hexdigest()


def _fingerprint(key: paramiko.PKey) -> str:
    import base64

    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
