"""What a daemon is told: where it listens, what it keeps, and its limits; read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.cause import sentence
from hostel.errors import UsageError
from hostel.net.address import TcpAddress
from hostel.units import MiB


class Limits(NamedTuple):
    """What clients may take.

    Attributes:
        clients: connections at a time; more wait in the listeners' queues.
        unopened: connections that have opened nothing yet; of more, the one that has waited longest is ended.
        unopened_seconds: after which such a connection is ended.
        requests: calls of one client that are worked on at a time.
        waiting: calls of one client that wait for that; more are not read.
        streams: of one client at a time.
        workers: threads for calls that may wait.
        message: bytes of a message.
        unread: bytes that a client may leave unread.
        keepalive_interval: seconds of silence after which a client that can answer is asked; 0 never asks.
        keepalive_count: questions without an answer after which it is cut off.
    """

    clients: int = 5000
    unopened: int = 200
    unopened_seconds: float = 30.0
    requests: int = 5
    waiting: int = 20
    streams: int = 16
    workers: int = 20
    message: int = 32 * MiB + 4
    unread: int = 64 * MiB
    keepalive_interval: int = 5
    keepalive_count: int = 5


class Rule(NamedTuple):
    """Who is given what.

    Attributes:
        user: a user's name, or ``*``.
        allow: permissions, as ``object.permission``; either may be ``*``.
        name: the objects' names, as a shell's pattern.
    """

    user: str
    allow: tuple[str, ...]
    name: str = "*"


class Port(NamedTuple):
    """Where clients of other hosts come to.

    Attributes:
        address: where it listens.
        scram: they must know a password.
        certificates: a directory, for TLS: ``ca-cert.pem``, ``server-cert.pem``, ``server-key.pem``, ``ca-crl.pem``.
        allowed_names: shell's patterns of the names in clients' certificates; None for any that our authority signed.
    """

    address: TcpAddress
    scram: bool
    certificates: str = ""
    allowed_names: tuple[str, ...] | None = None


class Config(NamedTuple):
    """A daemon's configuration.

    Attributes:
        socket: the path of the socket for those who may change things.
        read_only_socket: likewise for those who may look.
        group: whose members may use the sockets, besides the owner.
        limits: see there.
        rules: who may do what; None lets everybody who reaches the socket do everything.
        tcp: for clients without encryption; None where there are none.
        tls: for clients with certificates; likewise.
        passwords: the file of who may come with a password.
    """

    socket: Path
    read_only_socket: Path | None = None
    group: str = ""
    limits: Limits = Limits()
    rules: tuple[Rule, ...] | None = None
    tcp: Port | None = None
    tls: Port | None = None
    passwords: Path | None = None


_SECTIONS: Final = ("daemon", "limits", "rule", "tcp", "tls", "auth")
_TCP_PORT: Final = 16509
_TLS_PORT: Final = 16514


def read_config(path: Path, config: Config) -> Config:
    """Let a file change what is configured.

    Raises:
        UsageError: what it says is wrong, and where.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {sentence(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    unknown = [name for name in found if name not in _SECTIONS]
    if unknown:
        raise UsageError(f"{path}: there is no [{unknown[0]}]; known are {', '.join(_SECTIONS)}")
    config = _read_daemon(path, found.get("daemon", {}), config)
    limits = _read_limits(path, found.get("limits", {}), config.limits)
    rules = found.get("rule")
    if rules is not None:
        config = config._replace(rules=tuple(_read_rule(path, rule) for rule in rules))
    if "auth" in found:
        _check(path, "[auth]", found["auth"], {"passwords": str})
        config = config._replace(passwords=Path(found["auth"]["passwords"]))
    if "tcp" in found:
        config = config._replace(tcp=_read_port(path, "tcp", found["tcp"], _TCP_PORT))
    if "tls" in found:
        config = config._replace(tls=_read_port(path, "tls", found["tls"], _TLS_PORT))
    wanting = [port for port in (config.tcp, config.tls) if port is not None and port.scram]
    if wanting and config.passwords is None:
        raise UsageError(f'{path}: auth = "scram" needs [auth] with passwords = "FILE"')
    return config._replace(limits=limits)


def _read_port(path: Path, name: str, found: Mapping[str, Any], port: int) -> Port:
    known: dict[str, type] = {"listen": str, "auth": str}
    if name == "tls":
        known |= {"certificates": str, "allowed_names": list}
    _check(path, f"[{name}]", found, known)
    auth = found.get("auth", "none" if name == "tls" else "scram")
    if auth not in ("none", "scram"):
        raise UsageError(f'{path}: [{name}] auth must be "none" or "scram", not {auth!r}')
    if name == "tls" and "certificates" not in found:
        raise UsageError(f'{path}: [tls] needs certificates = "DIRECTORY"')
    host, _, number = found.get("listen", "").rpartition(":")
    if "listen" not in found:
        host, number = ("127.0.0.1" if name == "tcp" else ""), str(port)
    names = found.get("allowed_names")
    return Port(
        TcpAddress(host.strip("[]"), number),
        auth == "scram",
        found.get("certificates", ""),
        None if names is None else tuple(map(str, names)),
    )


def _read_daemon(path: Path, found: Mapping[str, Any], config: Config) -> Config:
    known = {"socket": Path, "read_only_socket": Path, "group": str}
    _check(path, "[daemon]", found, dict.fromkeys(known, str))
    return config._replace(**{name: known[name](value) for name, value in found.items()})


def _read_limits(path: Path, found: Mapping[str, Any], limits: Limits) -> Limits:
    _check(path, "[limits]", found, {name: type(value) for name, value in limits._asdict().items()})
    for name, value in found.items():
        if value < (0 if name == "keepalive_interval" else 1):
            raise UsageError(f"{path}: [limits] {name} = {value} is too small")
    return limits._replace(**found)


def _read_rule(path: Path, found: Mapping[str, Any]) -> Rule:
    _check(path, "[[rule]]", found, {"user": str, "allow": list, "name": str})
    allow = found.get("allow", [])
    if "user" not in found or not allow or not all(isinstance(word, str) and "." in word for word in allow):
        raise UsageError(f"{path}: a [[rule]] needs a user, and in allow words like 'domain.read' or 'domain.*'")
    return Rule(found["user"], tuple(allow), found.get("name", "*"))


def _check(path: Path, section: str, found: Mapping[str, Any], known: Mapping[str, type]) -> None:
    for name, value in found.items():
        if name not in known:
            raise UsageError(f"{path}: {section} has no '{name}'; known are {', '.join(known)}")
        kind = (int, float) if known[name] is float else known[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UsageError(f"{path}: {section} {name} must be {known[name].__name__}, not {value!r}")
