"""Reaching a daemon: a socket on this host, TCP, TLS, or a command over ssh."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Final

from hostel.cause import in_line, sentence
from hostel.drivers.fault import fault
from hostel.drivers.remote.uri import RemoteUri
from hostel.errors import ErrorCode, ErrorDomain, NetworkError, VirtError
from hostel.net.address import TcpAddress, UnixAddress, connect
from hostel.net.tls import TlsCredentials
from hostel.net.transport import SocketTransport, Transport

_CONNECT_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_CHUNK: Final = 1 << 16  # bytes
_MAX_COMPLAINT: Final = 1 << 16  # bytes
_ALLOWED: Final = b"\1"  # what a daemon says inside TLS once it has let the client in
_PKI: Final = ("ca-cert.pem", "client-cert.pem", "client-key.pem")
# Where daemons have theirs: libvirtd's and the modular ones of Linux, and Homebrew's on macOS.
_USUAL_SOCKETS: Final = (
    "/run/libvirt/libvirt-sock",
    "/run/libvirt/virtqemud-sock",
    "/opt/homebrew/var/run/libvirt/libvirt-sock",
    "/usr/local/var/run/libvirt/libvirt-sock",
)
_DEFAULT_SOCKET: Final = "/var/run/libvirt/libvirt-sock"


def reach(uri: RemoteUri, *, read_only: bool) -> Transport:
    """Connect to the daemon of a URI.

    Raises:
        VirtError: nobody is there, or lets us in.
    """
    try:
        if uri.transport == "unix":
            if not hasattr(socket, "AF_UNIX"):
                reason = "this system has no Unix sockets; reach a daemon of another host by +ssh, +tls or +tcp"
                raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, reason, ErrorDomain.RPC)
            path = uri.socket_path(read_only=read_only, environment=dict(os.environ))
            return SocketTransport(_connect_unix(path))
        if uri.transport == "ssh":
            return SshTransport(uri, read_only=read_only)
        sock = connect(TcpAddress(uri.host, str(uri.port)), _CONNECT_SECONDS)
        return SocketTransport(sock) if uri.transport == "tcp" else _secured(uri, sock)
    except NetworkError as error:
        text = f"unable to connect to server at '{uri.host}:{uri.port}': {sentence(error)}"
        if error.errno == errno.ECONNREFUSED:
            text += f"; no daemon listens there: systemctl start libvirtd-{uri.transport}.socket, or hosteld with "
            text += f"[{uri.transport}] in its configuration, on {uri.host}"
        raise VirtError(ErrorCode.SYSTEM_ERROR, text, domain=ErrorDomain.RPC) from None


def _connect_unix(path: str) -> socket.socket:
    try:
        return connect(UnixAddress(path), _CONNECT_SECONDS)
    except NetworkError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        text = f"Failed to connect socket to '{path}': {reason}; {_remedy(path, error)}"
        raise VirtError(ErrorCode.SYSTEM_ERROR, text, domain=ErrorDomain.RPC) from None


def _remedy(path: str, error: NetworkError) -> str:
    """What to do where a daemon's socket does not let us in, or is not there."""
    if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
        return in_line(error.hint or "is this the socket of a daemon?")
    why = "no daemon has made it"
    if error.errno == errno.ECONNREFUSED and os.path.exists(path) and not Path(path).is_socket():
        return "it is no socket"
    if error.errno == errno.ECONNREFUSED:
        why = "nobody listens on it any more, since the daemon that made it has ended"
    others = [place for place in _USUAL_SOCKETS if place != path and os.path.exists(place)]
    if others:
        return f"{why}; there is one at {others[0]}: add ?socket={others[0]} to the URI"
    start = f"hosteld --socket {shlex.quote(path)}, or systemctl start libvirtd or virtqemud"
    if sys.platform == "darwin":
        start = "brew services start libvirt, or +ssh:// and a host to reach that of a Linux host"
    return f"{why}; to start one: {start}"


def _secured(uri: RemoteUri, sock: socket.socket) -> Transport:
    import time

    verify = uri.settings.get("no_verify", "0") in ("", "0")
    deadline = time.monotonic() + _CONNECT_SECONDS
    try:
        with tempfile.TemporaryDirectory(prefix="hostel-pki-") as gathered:
            credentials = TlsCredentials(_gather(uri, Path(gathered), verify=verify), server=False, verify_peer=verify)
        transport = credentials.wrap(sock, hostname=uri.host, deadline=deadline)
        transport.settimeout(_CONNECT_SECONDS)
        answer = bytearray(1)
        # The daemon looks at our certificate, and says so before anything else.
        if not transport.recv_into(memoryview(answer)) or answer != _ALLOWED:
            raise fault(ErrorCode.RPC, "server verification (of our certificate or IP address) failed", ErrorDomain.RPC)
        transport.settimeout(None)
        return transport
    except BaseException:
        sock.close()
        raise


def _gather(uri: RemoteUri, directory: Path, *, verify: bool) -> str:
    """One directory with the certificates, which libvirt keeps in several places under several names.

    Raises:
        VirtError: there is no authority's, by which to know the server.
    """
    given = uri.settings.get("pkipath")
    if given:
        known: list[tuple[str, ...]] = [("cacert.pem",), ("clientcert.pem",), ("clientkey.pem",)]
        roots = [Path(given)]
    else:
        known = [
            ("CA/cacert.pem", "cacert.pem"),
            ("libvirt/clientcert.pem", "clientcert.pem"),
            ("libvirt/private/clientkey.pem", "clientkey.pem"),
        ]
        roots = [Path.home() / ".pki" / "libvirt", Path("/etc/pki")]
    for target, candidates in zip(_PKI, known, strict=True):
        places = [root / name for root in roots for name in candidates]
        found = next((place for place in places if os.path.lexists(place)), None)
        if found is None and target == _PKI[0] and verify:
            usual = roots[-1] / candidates[0]  # where libvirt looks
            others = "".join(f"; nor is there '{place}'" for place in places if place != usual)
            text = f"Cannot read CA certificate '{usual}': No such file or directory{others}"
            raise VirtError(ErrorCode.SYSTEM_ERROR, text, domain=ErrorDomain.RPC)
        if found is not None:
            try:
                (directory / target).symlink_to(found.absolute())
            except OSError:  # Windows lets only administrators make links
                shutil.copyfile(found, directory / target)
    return str(directory)


class SshTransport(SocketTransport):
    """The standard input and output of a command on another host, as one socket."""

    def __init__(self, uri: RemoteUri, *, read_only: bool) -> None:
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        ours, theirs = socket.socketpair()
        try:
            start = _start if hasattr(os, "fork") else _start_with_pipes
            self._process = start(ssh_command(uri, read_only=read_only), theirs, self._complaint)
        except OSError as error:
            for each in (ours, theirs, self._complaint):
                each.close()
            fix = "; install the package openssh-client" if error.errno == errno.ENOENT else ""
            raise fault(ErrorCode.SYSTEM_ERROR, f"cannot run ssh: {error.strerror}{fix}", ErrorDomain.RPC) from None
        super().__init__(ours)
        self.passes_files = False

    def said(self) -> str:
        """What the command complained about, once it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            self._process.wait(_END_SECONDS)
            self._complaint.seek(0)
            return self._complaint.read(_MAX_COMPLAINT).decode(errors="replace").strip()
        return ""

    def close(self) -> None:
        """End the command."""
        super().close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, and ends after that
                    self._process.wait(_END_SECONDS)
        self._complaint.close()


def _start(command: list[str], end: socket.socket, complaint: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command whose input and output are a socket."""
    with end:
        return subprocess.Popen(command, stdin=end.fileno(), stdout=end.fileno(), stderr=complaint)


def _start_with_pipes(command: list[str], end: socket.socket, complaint: IO[bytes]) -> subprocess.Popen[bytes]:
    """The same where a socket is no file: threads carry between it and pipes until the command has ended."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaint, bufsize=0)
    threading.Thread(target=_carry_out, args=(process, end), daemon=True).start()
    threading.Thread(target=_carry_in, args=(process, end), daemon=True).start()
    return process


def _carry_in(process: subprocess.Popen[bytes], end: socket.socket) -> None:
    assert process.stdin is not None
    with end, contextlib.suppress(OSError), process.stdin as pipe:
        while data := end.recv(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[pipe.write(view) :]


def _carry_out(process: subprocess.Popen[bytes], end: socket.socket) -> None:
    assert process.stdout is not None
    with contextlib.suppress(OSError), process.stdout as pipe:
        while data := pipe.read(_CHUNK):
            end.sendall(data)
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # which also ends who carries the other way


def ssh_command(uri: RemoteUri, *, read_only: bool) -> list[str]:
    """The command line of ssh, and in it what the other host's shell is given."""
    command = [uri.settings.get("command", "ssh"), "-T", "-e", "none"]
    if uri.user:
        command += ["-l", uri.user]
    if uri.port:
        command += ["-p", str(uri.port)]
    if "keyfile" in uri.settings:
        command += ["-i", uri.settings["keyfile"]]
    if uri.settings.get("no_tty", "0") not in ("", "0"):
        command += ["-o", "BatchMode=yes"]
    if uri.settings.get("no_verify", "0") not in ("", "0"):
        command += ["-o", "StrictHostKeyChecking=no"]
    path = uri.settings.get("socket", f"{_DEFAULT_SOCKET}{'-ro' if read_only else ''}")
    netcat = shlex.quote(uri.settings.get("netcat", "nc"))
    # OpenBSD's nc must be told to end with its input, others do not know the option.
    by_netcat = (
        f"if {netcat} -q 2>&1 | grep 'requires an argument' >/dev/null; then A=-q0; else A=; fi; "
        f"{netcat} $A -U {shlex.quote(path)}"
    )
    helper = f"virt-ssh-helper {'-r ' if read_only else ''}{shlex.quote(uri.name)}"
    by_helper = f"which virt-ssh-helper >/dev/null 2>&1; if test $? = 0; then {helper}; else {by_netcat}; fi"
    # A socket or a netcat that was named is meant; and the helper knows where a session's daemon is.
    direct = "socket" in uri.settings or "netcat" in uri.settings or uri.settings.get("proxy") == "netcat"
    script = by_netcat if direct else by_helper
    if uri.settings.get("proxy") == "native":
        script = helper
    return [*command, "--", uri.host, f"sh -c {shlex.quote(script)}"]
