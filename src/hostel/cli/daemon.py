"""``hostel daemon``, also ``hosteld``: libvirt's remote protocol in front of our machines, in the foreground."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hostel.cli.main import describe
from hostel.errors import HostelError, NetworkError, UsageError

if TYPE_CHECKING:
    import argparse

    from hostel.daemon.config import Config
    from hostel.drivers.store import Directories

_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@,+*")


def main(words: list[str]) -> int:
    """Run a command line; ``words`` follow the tool's name.

    Returns:
        The exit code: 0 after a clean stop, 1 where the daemon cannot start, 2 where the command line is wrong.
    """
    arguments = _parser().parse_args(words)
    if arguments.verifier:
        return _make_verifier(arguments.verifier)
    try:
        config = _configured(arguments)
        if arguments.check:
            return _check(config, _directories(arguments))
        return _serve(arguments, config)
    except (UsageError, NetworkError) as error:
        print(f"hosteld: error: {describe(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(
        prog="hosteld",
        description="Serve machines, pools and networks to libvirt's clients, in the foreground.",
        epilog="Without options the sockets are where libvirt's clients look for them.",
    )
    parser.add_argument("--socket", metavar="PATH", help="the socket for those who may change things")
    parser.add_argument("--socket-ro", metavar="PATH", help="the socket for those who may look")
    parser.add_argument("--state", metavar="DIR", help="where everything is kept")
    parser.add_argument("-f", "--config", metavar="FILE", help="limits and access rules, as TOML")
    parser.add_argument("--check", action="store_true", help="say whether it could start, and how, and end")
    parser.add_argument("-t", "--timeout", metavar="SECONDS", type=float, default=0.0, help="end when idle for so long")
    parser.add_argument(
        "--log", choices=("text", "json"), default="text", help="the form of the log, on standard error"
    )
    parser.add_argument("--verifier", metavar="USER", help="read a password, print a line for the file of passwords")
    parser.add_argument("-q", "--quiet", action="store_true", help="log only what went wrong")
    return parser


def _make_verifier(user: str) -> int:
    """Print what lets a user in who knows the password that is read."""
    import getpass

    from hostel.wire.rpc.scram import Verifier

    if ":" in user or not user.isprintable():
        raise UsageError(f"'{user}' cannot be a user's name")
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    print(f"{user}:{Verifier.of(password)}")
    return 0


def _configured(arguments: argparse.Namespace) -> Config:
    from hostel.daemon.config import Config, read_config

    usual = _usual_socket()
    socket = Path(arguments.socket) if arguments.socket else usual
    read_only = None if arguments.socket or os.geteuid() != 0 else usual.with_name(f"{usual.name}-ro")
    if arguments.socket_ro:
        read_only = Path(arguments.socket_ro)
    config = Config(socket, read_only)
    if arguments.config:
        config = read_config(Path(arguments.config), config)
    return config


def _usual_socket() -> Path:
    """Where libvirt's clients look for this user's daemon."""
    if os.geteuid() == 0:
        return Path("/run/libvirt/libvirt-sock")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) if runtime else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "libvirt" / "libvirt-sock"


def _directories(arguments: argparse.Namespace) -> Directories:
    from hostel.drivers.store import Directories

    if arguments.state:
        return Directories.under(Path(arguments.state))
    if os.geteuid() != 0 or "HOSTEL_HOME" in os.environ:
        return Directories.from_environment(os.environ)
    return Directories.system()


def _check(config: Config, directories: Directories) -> int:
    """Say what a start would do; 0 where it would succeed."""
    from hostel.daemon.server import Daemon

    daemon = Daemon(config, directories, lambda message, **fields: None)
    problem = daemon.check()
    print(f"socket            {config.socket}")
    print(f"read-only socket  {config.read_only_socket or '-'}")
    for name, path in zip(("definitions", "running", "cache", "volumes"), directories, strict=True):
        print(f"{name:<17} {path}")
    for name, port in (("TCP", config.tcp), ("TLS", config.tls)):
        asks = "" if port is None else f"{port.address}{', with a password' if port.scram else ''}"
        print(f"{name:<17} {asks or '-'}")
    print(f"access            {'everybody on the socket' if config.rules is None else f'{len(config.rules)} rules'}")
    if problem:
        print(f"hosteld: error: {problem}", file=sys.stderr)
        return 1
    print("ready to start")
    return 0


def _serve(arguments: argparse.Namespace, config: Config) -> int:
    from hostel.daemon.foreign import unheeded
    from hostel.daemon.server import Daemon
    from hostel.net import systemd

    _raise_descriptor_limit()
    inherited = systemd.listeners(systemd.count(os.environ))
    directories, log = _directories(arguments), _logger(arguments)
    daemon = Daemon(config, directories, log, idle_seconds=arguments.timeout)
    daemon.listen(inherited)
    for name, here in unheeded(directories):
        log("not acted on", setting=name, reason=f"libvirtd.conf is libvirt's alone; here: {here}")
    for number in _ENDING:
        signal.signal(number, lambda number, _: daemon.stop(signal.Signals(number).name))
    daemon.start_machines()
    _tell_systemd("READY=1")
    daemon.run()
    return 0


def _raise_descriptor_limit() -> None:
    """Every client takes one, and what a service is given to begin with is for programs of another kind."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _logger(arguments: argparse.Namespace) -> Callable[..., None]:
    def log(message: str, **fields: Any) -> None:
        if arguments.quiet and "reason" not in fields:
            return
        moment = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment * 1000) % 1000:03}Z"
        if arguments.log == "json":
            line = json.dumps({"time": stamp, "message": message, **fields}, default=str)
        else:
            line = f"{stamp} {message} " + " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        with contextlib.suppress(OSError):
            sys.stderr.write(line.rstrip() + "\n")
            sys.stderr.flush()

    return log


def _quoted(value: object) -> str:
    """A value of a log line; what comes from clients must not look like more of it."""
    text = str(value)
    return text if text and set(text) <= _PLAIN else json.dumps(text)


def _tell_systemd(state: str) -> None:
    """Say to the service manager, where there is one, that we are up (``sd_notify(3)``)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    import socket

    with contextlib.suppress(OSError, HostelError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), f"\0{path[1:]}" if path.startswith("@") else path)
