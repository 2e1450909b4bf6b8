"""``qemu-nbd -c`` and ``-d``: an image as a disk of this host, by the kernel's NBD client."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable
from typing import Final

from hostel.block.protocols.nbd.connection import negotiate
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.output import Output, reason
from hostel.errors import HostelError
from hostel.export.nbd.kernel_client import KernelClient
from hostel.net.address import UnixAddress
from hostel.net.transport import SocketTransport
from hostel.wire.nbd.client import ClientHandshake, Connected

_FLUSH_SECONDS: Final = 60.0
_END_SECONDS: Final = 30.0


def disconnect(device: str, output: Output) -> int:
    """End a device's connection, with all written that the page cache has of it.

    Returns:
        The exit code.

    Raises:
        Failure: there is no such device, or it is another kind of file.
    """
    try:
        client = KernelClient(device)
    except OSError as error:
        raise Failure(f"Cannot open {device}: {reason(error)}") from None
    with contextlib.closing(client):
        unwritten = _flush(client)
        try:
            client.disconnect()
        except OSError as error:
            raise Failure(f"Cannot disconnect {device}: {error.strerror}") from None
    output.line(f"{device} disconnected")
    if unwritten is not None:
        output.error(f"Data that was written to {device} is lost: {unwritten}")
        return 1
    return 0


class Disk:
    """A device whose connection is this process's own server.

    Args:
        device: its path.
        place: where the server listens.
        name: the export's.
        output: where failures are told.
    """

    def __init__(self, device: str, place: UnixAddress, name: str, output: Output) -> None:
        self._device, self._place, self._name, self._output = device, place, name, output
        self._client: KernelClient | None = None
        self._thread: threading.Thread | None = None
        self._is_ending = False
        self._is_done = self._is_lost = False

    def start(self, connected: Callable[[], None], ended: Callable[[], None]) -> None:
        """Connect the device, in a thread which stays with it: the kernel wants one.

        Args:
            connected: called when the disk is there.
            ended: called when it is no more.
        """
        self._thread = threading.Thread(target=self._run, args=(connected, ended), name="disk", daemon=True)
        self._thread.start()

    def end(self, stop: Callable[[], None]) -> None:
        """Let go of the disk: write out what is to be written, then stop the server; at once when asked again."""
        if self._client is None or self._is_ending:
            stop()
            return
        self._is_ending = True
        threading.Thread(target=self._end, args=(self._client, stop), daemon=True).start()

    def wait(self) -> int:
        """Wait until the kernel has let go; the exit code."""
        if self._thread is not None:
            self._thread.join(_END_SECONDS)
            if self._thread.is_alive():
                self._output.error(f"{self._device} is not let go of by the kernel within {_END_SECONDS:.0f} seconds")
                return 1
        return 0 if self._is_done else 1

    def _run(self, connected: Callable[[], None], ended: Callable[[], None]) -> None:
        try:
            transport, event = negotiate(self._place, ClientHandshake(self._name, structured=False, contexts=()), None)
            assert isinstance(transport, SocketTransport) and isinstance(event, Connected)
            with contextlib.closing(transport), contextlib.closing(_open(self._device)) as client:
                client.attach(transport.socket, event.export)
                self._client = client
                client.run(connected)
                self._client, self._is_done = None, not self._is_lost
        except Failure as error:
            self._output.error(error.message, error.hint)
        except HostelError as error:
            self._output.error(str(error), getattr(error, "hint", None))
        except OSError as error:
            self._output.error(f"{self._device}: {error.strerror}")
        finally:
            ended()

    def _end(self, client: KernelClient, stop: Callable[[], None]) -> None:
        unwritten = _flush(client)
        if unwritten is not None:
            self._is_lost = True
            self._output.error(f"Data that was written to {self._device} is lost: {unwritten}")
        stop()


def _open(device: str) -> KernelClient:
    try:
        return KernelClient(device)
    except OSError as error:
        is_missing = error.errno == errno.ENOENT
        hint = "The kernel's module makes such devices: modprobe nbd max_part=16" if is_missing else None
        raise Failure(f"Failed to open {device}: {reason(error)}", hint=hint) from None


def _flush(client: KernelClient) -> str | None:
    """Write out what the page cache has; why that failed, or None."""
    failures: list[str] = []

    def flush() -> None:
        try:
            client.flush()
        except OSError as error:
            failures.append(str(error.strerror))

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    thread.join(_FLUSH_SECONDS)
    if thread.is_alive():
        return f"it was not written within {_FLUSH_SECONDS:.0f} seconds"
    return failures[0] if failures else None
