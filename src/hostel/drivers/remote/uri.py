"""A remote URI in its parts, by libvirt's rules (``src/remote/remote_driver.c``)."""

from __future__ import annotations

import os
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain

TRANSPORTS: Final = ("unix", "tcp", "tls", "ssh")
# What a transport may be told; the others are for the driver behind the daemon.
_KNOWN: Final = frozenset(
    {"name", "command", "socket", "netcat", "keyfile", "no_verify", "no_tty", "pkipath", "mode", "proxy", "sshauth",
     "known_hosts", "known_hosts_verify", "tls_priority", "authfile"}
)  # fmt: skip
_PORTS: Final = {"tcp": 16509, "tls": 16514}


class RemoteUri(NamedTuple):
    """Where a daemon is, and what to ask it for.

    Attributes:
        written: the URI as it was given.
        transport: one of :data:`TRANSPORTS`.
        name: the URI that the daemon is given.
        host: its name; empty on this host.
        port: 0 where none is said.
        user: for ssh; empty for ssh's own choice.
        settings: what the transport is told.
    """

    written: str
    transport: str
    name: str
    host: str
    port: int
    user: str
    settings: dict[str, str]

    @property
    def is_session(self) -> bool:
        """Whether it is the daemon of a user, not of the host."""
        return self.name.partition("?")[0].endswith("/session")

    def socket_path(self, *, read_only: bool, environment: dict[str, str]) -> str:
        """The path of the daemon's socket on this host."""
        if "socket" in self.settings:
            return self.settings["socket"]
        if self.is_session and os.geteuid() != 0:
            runtime = environment.get("XDG_RUNTIME_DIR") or f"{environment.get('HOME', '')}/.cache"
            return f"{runtime}/libvirt/libvirt-sock"
        return f"/var/run/libvirt/libvirt-sock{'-ro' if read_only else ''}"


def parse(uri: SplitResult, written: str) -> RemoteUri | None:
    """Take a URI apart; None where it is about this process and no daemon.

    Raises:
        VirtError: ``INVALID_ARG``: no transport of this name, a port that is none.
    """
    scheme, plus, transport = uri.scheme.partition("+")
    if not plus and not uri.netloc:
        return None
    transport = transport or "tls"
    if transport not in TRANSPORTS:
        raise fault(
            ErrorCode.INVALID_ARG,
            f"transport in URL not recognised (should be {'|'.join(TRANSPORTS)})",
            ErrorDomain.REMOTE,
        )
    try:
        port = uri.port or 0
    except ValueError:
        raise fault(ErrorCode.INVALID_ARG, f"'{written}' has a port that is none", ErrorDomain.REMOTE) from None
    host = uri.hostname or ""
    if not host and transport in ("tcp", "ssh"):
        host = "localhost"
    if transport == "unix" and host:
        raise fault(
            ErrorCode.INVALID_ARG,
            "transport 'unix' is only for this host: leave the host's name out of the URI",
            ErrorDomain.REMOTE,
        )
    settings: dict[str, str] = {}
    kept: list[str] = []
    for key, value in parse_qsl(uri.query, keep_blank_values=True):
        if key in _KNOWN:
            settings[key] = value
        else:
            kept.append(f"{key}={value}")
    name = settings.get("name") or f"{scheme}://{uri.path}" + (f"?{'&'.join(kept)}" if kept else "")
    return RemoteUri(
        written, transport, name, host, port or _PORTS.get(transport, 0), unquote(uri.username or ""), settings
    )
