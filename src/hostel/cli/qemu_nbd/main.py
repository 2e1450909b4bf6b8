"""``qemu-nbd``: from the command line to a server that runs until a signal or the last client ends it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from hostel.block import notice, objects
from hostel.block.restraint import unrestrained
from hostel.cli.qemu import pidfile
from hostel.cli.qemu.ending import Ending
from hostel.cli.qemu.failure import Answered, Failure, HelpAsked, VersionAsked
from hostel.cli.qemu.impatience import GivenUp, Impatience
from hostel.cli.qemu.output import Output
from hostel.cli.qemu.release import QEMU_VERSION
from hostel.cli.qemu_nbd import settings as options
from hostel.cli.qemu_nbd.background import Background, fork
from hostel.cli.qemu_nbd.image import find_bitmaps, open_image
from hostel.cli.qemu_nbd.settings import Settings
from hostel.errors import BlockError, NetworkError, RemoteProtocolError, UsageError
from hostel.export.nbd.connection import NbdService, Security
from hostel.export.nbd.export import NbdExport
from hostel.net import address, systemd
from hostel.net.address import Address, TcpAddress, UnixAddress
from hostel.net.server import Server
from hostel.wire.nbd.protocol import DEFAULT_PORT

if TYPE_CHECKING:
    from hostel.block.node import BlockNode
    from hostel.cli.qemu_nbd.disk import Disk

_EVERYWHERE: Final = "0.0.0.0"
_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(words: list[str], prog: str) -> int:
    """Run a command line; ``words`` follow the tool's name.

    Returns:
        The exit code.
    """
    output = Output(prog)
    objects.clear()
    return output.end(_guarded(words, output))


def _guarded(words: list[str], output: Output) -> int:
    prog = output.prog
    try:
        with notice.listening(output.noticed):
            return _main(options.read(words), output)
    except Answered as answered:
        output.text(answered.text)
        return 0
    except HelpAsked:
        output.text(options.usage(prog))
        return 0
    except VersionAsked:
        from hostel import __version__

        output.text(f"{prog} {QEMU_VERSION} (Hostel {__version__})\n")
        return 0
    except UsageError as error:
        output.error(f"{error}\nTry `{prog} --help' for more information.")
    except Failure as error:
        output.error(error.message, error.hint)
    except (BlockError, NetworkError) as error:
        output.error(error.message, error.hint)
    except RemoteProtocolError as error:
        output.error(str(error), getattr(error, "hint", None))
    return 1


def _main(settings: Settings, output: Output) -> int:
    if settings.has("list"):
        _check_list(settings)
    elif len(settings.operands) != 1:
        output.error("Invalid number of arguments", f"Try `{output.prog} --help' for more information.")
        return 1
    handed_over = systemd.count(os.environ)
    if handed_over:
        _check_handed_over(settings, handed_over)
    security = _security(settings)
    if settings.has("selinux-label") and settings.socket is None:
        raise Failure("--selinux-label is not permitted without --socket")
    if settings.has("list"):
        _list(settings, output, security)
        return 0
    if settings.has("disconnect"):
        from hostel.cli.qemu_nbd import disk

        return disk.disconnect(settings.operands[0], output)
    background = fork() if settings.has("fork") or (settings.has("connect") and not settings.has("verbose")) else None
    if isinstance(background, int):
        return background
    return _serve(settings, output, security, handed_over, background)


def _check_list(settings: Settings) -> None:
    if settings.operands:
        raise Failure("List mode is incompatible with a file name")
    if settings.conflicts_with_list():
        raise Failure("List mode is incompatible with per-device settings")
    if settings.has("fork"):
        raise Failure("List mode is incompatible with forking")


def _check_handed_over(settings: Settings, number: int) -> None:
    for name, message in (
        ("connect", "NBD device can't be set when using socket activation"),
        ("socket", "Unix socket can't be set when using socket activation"),
        ("bind", "The interface can't be set when using socket activation"),
        ("port", "TCP port number can't be set when using socket activation"),
        ("selinux-label", "SELinux label can't be set when using socket activation"),
        ("list", "List mode is incompatible with socket activation"),
    ):
        if settings.has(name):
            raise Failure(message)
    if number > 1:
        raise Failure("qemu-nbd does not support socket activation with LISTEN_FDS > 1")


def _security(settings: Settings) -> Security | None:
    """TLS as the options want it, for either side."""
    listing = settings.has("list")
    credentials, authorization = settings.get("tls-creds"), settings.get("tls-authz")
    if credentials is not None and settings.has("connect"):
        raise Failure("TLS is not supported with a host device")
    if credentials is None:
        for name in ("tls-authz", "tls-hostname"):
            if settings.has(name):
                raise Failure(f"--{name} is not permitted without --tls-creds")
        return None
    if authorization is not None and listing:
        raise Failure("TLS authorization is incompatible with export list")
    if settings.has("tls-hostname") and not listing:
        raise Failure("TLS hostname is only supported with export list")
    try:
        return Security(
            objects.tls_credentials(credentials, server=not listing),
            None if authorization is None else objects.authorization(authorization),
        )
    except BlockError as error:
        raise Failure(f"Failed to get TLS creds: {error}") from None


def _list(settings: Settings, output: Output, security: Security | None) -> None:
    from hostel.block.protocols.nbd.connection import Security as ClientSecurity
    from hostel.cli.qemu_nbd.listing import list_exports

    expected = None
    if security is not None:
        hostname = settings.get("tls-hostname") or settings.get("bind")
        if hostname is None and not settings.has("socket"):
            hostname = _EVERYWHERE
        expected = ClientSecurity(security.credentials, hostname)
    list_exports(output, _address(settings), expected)


def _address(settings: Settings) -> Address:
    path = settings.socket
    if path is not None:
        return UnixAddress(path)
    return TcpAddress(settings.get("bind") or _EVERYWHERE, settings.get("port") or str(DEFAULT_PORT))


def _serve(
    settings: Settings, output: Output, security: Security | None, handed_over: int, background: Background | None
) -> int:
    """Serve until the end; signals end it as the last client does."""
    path = settings.socket
    impatience = Impatience()
    heard = _hear(impatience)
    with ExitStack() as stack:
        listeners = _listen(settings, handed_over)
        for listener in listeners:
            stack.callback(listener.close)
        if path is not None:
            stack.callback(address.remove_unix, path)
        try:
            with impatience.opening():
                node = open_image(settings, output)
        except GivenUp:
            return 0
        ending = Ending(output.error)
        stack.callback(_close, ending, node)
        export = NbdExport(
            node,
            settings.get("export-name") or "",
            description=settings.get("description"),
            writable=not settings.read_only,
            shared=settings.shared != 1,
            allocation_depth=settings.has("allocation-depth"),
            bitmaps=find_bitmaps(settings, node),
        )
        service = NbdService([export], security=security, report=output.error, handshake_limit=settings.handshake_limit)
        server = Server(listeners, service.serve, limit=settings.shared, once=not settings.has("persistent"))
        disk = _disk(settings, output)

        def end(*_: object) -> None:
            ending.give_up()
            stack.enter_context(unrestrained(node))  # what is under way is done at once
            if disk is None:
                server.stop()
            else:
                disk.end(server.stop)

        for number in _ENDING:
            signal.signal(number, end)
        if heard:
            return 0
        pid_file = settings.get("pid-file")
        if pid_file is not None:
            stack.callback(os.close, pidfile.write(pid_file))
        os.chdir("/")
        if disk is not None:
            disk.start(lambda: _tell_of_disk(settings, output, background), server.stop)
        elif background is not None:
            background.ready()
        try:
            server.accept()
        finally:
            ending.begin({"a connection": server.end})
        return 0 if disk is None else disk.wait()


def _close(ending: Ending, node: BlockNode) -> None:
    ending.close({"the image": node})
    ending.finish()


def _hear(impatience: Impatience) -> list[int]:
    """Let the signals that end a server wait until there is one: its socket is taken away, and its image is closed.

    Of an image that is not opened in the end, the second signal lets go, where none is given up.
    """
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        impatience.begin()
        signal.signal(number, signal.SIG_DFL)

    for number in _ENDING:
        signal.signal(number, hear)
    return heard


def _disk(settings: Settings, output: Output) -> Disk | None:
    """The device that is to be connected with this server."""
    device, path = settings.get("connect"), settings.socket
    if device is None or path is None:
        return None
    from hostel.cli.qemu_nbd.disk import Disk

    return Disk(device, UnixAddress(path), settings.get("export-name") or "", output)


def _tell_of_disk(settings: Settings, output: Output, background: Background | None) -> None:
    if background is not None:
        background.ready()
    else:
        output.diagnostic(f"NBD device {settings.get('connect')} is now connected to {settings.operands[0]}")


def _listen(settings: Settings, handed_over: int) -> Sequence[socket.socket]:
    label = settings.get("selinux-label")
    if handed_over:
        try:
            return systemd.listeners(handed_over)
        except OSError as error:
            raise Failure(f"Failed to use socket activation: {error.strerror}") from None
    backlog = socket.SOMAXCONN
    if settings.shared and not settings.has("persistent"):
        backlog = min(settings.shared, backlog)
    if label is not None:
        _set_socket_label(label, f"Cannot set SELinux socket create context to {label}")
    listeners = address.listen(_address(settings), backlog, dual_stack=True)
    if label is not None:
        _set_socket_label("", "Cannot clear SELinux socket create context")
    return listeners


def _set_socket_label(label: str, failure: str) -> None:
    try:
        with open("/proc/thread-self/attr/sockcreate", "wb", buffering=0) as stream:
            stream.write(label.encode() + b"\0" if label else b"")
    except OSError as error:
        raise Failure(f"{failure}: {error.strerror}") from None
