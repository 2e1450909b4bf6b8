"""``qemu-storage-daemon``: options make nodes, exports and monitors in their order; then it serves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.cause import hint_of
from hostel.cli.qemu import pidfile
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.getopt import GetOpt
from hostel.cli.qemu.impatience import GivenUp, Impatience
from hostel.cli.qemu.output import Output
from hostel.cli.qemu.release import QEMU_VERSION
from hostel.cli.storage_daemon import usage
from hostel.errors import BlockError, HostelError, UsageError

if TYPE_CHECKING:
    from hostel.cli.qemu_nbd.background import Background
    from hostel.cli.storage_daemon.daemon import Daemon

_FLAGS: Final = (
    Flag("blockdev", long="blockdev", value="OPTIONS"),
    Flag("chardev", long="chardev", value="OPTIONS"),
    Flag("daemonize", long="daemonize"),
    Flag("export", long="export", value="OPTIONS"),
    Flag("help", "h", "help"),
    Flag("monitor", long="monitor", value="OPTIONS"),
    Flag("nbd-server", long="nbd-server", value="OPTIONS"),
    Flag("object", long="object", value="OPTIONS"),
    Flag("pidfile", long="pidfile", value="PATH"),
    Flag("trace", "T", "trace", "PATTERN"),
    Flag("version", "V", "version"),
)
_OPERAND: Final = Flag("operand")
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Given(NamedTuple):
    """An option, or what is none, as it was given; ``written`` as errors name it."""

    name: str
    value: str
    written: str


class _Done(HostelError):
    """Something was asked for that is said now; nothing is served."""


def main(words: list[str], prog: str) -> int:
    """Run a command line; ``words`` follow the tool's name.

    Returns:
        The exit code.
    """
    output = Output(prog)
    try:
        options = GetOpt(_FLAGS, words, _OPERAND)
        given = [_Given(flag.name, value, options.written) for flag, value in options]
    except UsageError as error:
        output.error(str(error))
        return 1
    for name, _, _ in given:
        if name == "help":
            output.text(usage.PAGE.format(prog=prog))
            return output.end(0)
        if name == "version":
            from hostel import __version__

            output.text(f"{prog} version {QEMU_VERSION} (Hostel {__version__})\n")
            return output.end(0)
    return _start(given, output)


def _start(given: Sequence[_Given], output: Output) -> int:
    background: Background | None = None
    if any(name == "daemonize" for name, _, _ in given):
        from hostel.cli.qemu_nbd.background import fork

        forked = fork()
        if isinstance(forked, int):
            return forked
        background = forked
    from hostel.block import notice, objects
    from hostel.cli.storage_daemon.daemon import Daemon

    objects.clear()
    daemon = Daemon(output.error)
    code = 0
    try:
        with notice.listening(output.noticed), ExitStack() as stack:
            # Where making them fails, or a signal comes meanwhile, what was made is taken back.
            stack.callback(daemon.close)
            impatience = Impatience()

            def stop(*_: object) -> None:
                impatience.begin()
                daemon.stop()

            for number in _ENDING:
                signal.signal(number, stop)
            try:
                # A client that comes while they are made finds all of them: its commands wait.
                with daemon.lock:
                    for each in given:
                        if not daemon.stopping:
                            with impatience.opening() if each.name == "blockdev" else nullcontext():
                                _make(daemon, each, output)
            except (GivenUp, _Done):
                return 0
            daemon.serve()
            _write_pid_file(stack, [value for name, value, _ in given if name == "pidfile"])
            if background is not None:
                os.chdir("/")
                background.ready()
            daemon.wait()
    except Failure as error:
        output.error(error.message)
        code = 1
    except OSError as error:
        output.failed(error)
        code = 1
    return code


def _write_pid_file(stack: ExitStack, paths: Sequence[str]) -> None:
    if not paths:
        return
    path = os.path.realpath(paths[-1])
    try:
        fd = pidfile.write(paths[-1])
    except Failure as error:
        raise Failure(f"cannot create PID file: {error.message}") from None
    stack.callback(os.close, fd)
    stack.callback(os.unlink, path)


def _make(daemon: Daemon, given: _Given, output: Output) -> None:
    """Do what one option says; its errors begin with the option as it was written."""
    make = _MAKERS.get(given.name)
    if make is None:
        return
    try:
        make(daemon, given.value, output)
    except _Done:
        raise
    except (HostelError, OSError) as error:
        message = error.strerror if isinstance(error, OSError) and not isinstance(error, HostelError) else str(error)
        hint = getattr(error, "hint", None) or hint_of(error)
        raise BlockError(f"{given.written}: {message}", hint=hint) from None


def _blockdev(daemon: Daemon, value: str, output: Output) -> None:
    from hostel.cli.qemu.keyval import parse

    tree, is_text = parse(value, "driver")
    daemon.nodes.add(tree, text=is_text)


def _export(daemon: Daemon, value: str, output: Output) -> None:
    from hostel.cli.qemu.keyval import parse
    from hostel.cli.storage_daemon import exports

    tree, is_text = parse(value, "type")
    exports.add(daemon, tree, text=is_text)


def _nbd_server(daemon: Daemon, value: str, output: Output) -> None:
    from hostel.cli.qemu.keyval import parse
    from hostel.cli.storage_daemon.monitor.export import start_server

    tree, is_text = parse(value)
    start_server(daemon, tree, text=is_text, nested=False)


def _object(daemon: Daemon, value: str, output: Output) -> None:
    from hostel.cli.qemu.object_types import OF_DAEMONS
    from hostel.cli.qemu.objects import create_object

    told = create_object(value, OF_DAEMONS)
    if told is not None:
        output.text(told)
        raise _Done


def _chardev(daemon: Daemon, value: str, output: Output) -> None:
    from hostel.cli.storage_daemon.chardev import TYPES, open_device

    device = open_device(value, lambda: daemon.stopping)
    if device is None:
        output.text("Available chardev backend types: \n" + "".join(f"  {name}\n" for name in TYPES))
        raise _Done
    if device.label in daemon.devices:
        device.close()
        raise Failure(f"attempt to add duplicate property '{device.label}' to object (type 'container')")
    daemon.devices[device.label] = device


def _monitor(daemon: Daemon, value: str, output: Output) -> None:
    from hostel.cli.qemu.keyval import parse
    from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, needed
    from hostel.cli.storage_daemon.monitor.server import MonitorServer

    tree, is_text = parse(value, "chardev")
    known = (Parameter("id"), Parameter("mode", values=("readline", "control")), Parameter("pretty", Kind.BOOL))
    checked = check((*known, needed("chardev")), tree, text=is_text)
    device = daemon.devices.get(checked["chardev"])
    if device is None:
        raise Failure(f'chardev "{checked["chardev"]}" not found')
    if checked.get("mode") == "readline":
        raise Failure("Only QMP is supported")
    if any(monitor.label == device.label for monitor in daemon.monitors):
        raise Failure(f"Device '{device.label}' is in use")
    daemon.monitors.append(MonitorServer(daemon, device, pretty=checked.get("pretty", False)))


def _unexpected(daemon: Daemon, value: str, output: Output) -> None:
    raise Failure("Unexpected argument")


_MAKERS: Final[dict[str, Callable[[Daemon, str, Output], None]]] = {
    "blockdev": _blockdev,
    "chardev": _chardev,
    "export": _export,
    "monitor": _monitor,
    "nbd-server": _nbd_server,
    "object": _object,
    "operand": _unexpected,
}
