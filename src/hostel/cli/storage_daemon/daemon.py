"""What runs under the monitor: nodes, exports, the NBD server; and what ends it all."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hostel.block import incident, sizes
from hostel.block.jobs.table import JobTable
from hostel.block.nodes import NodeTable
from hostel.block.restraint import unrestrained
from hostel.cli.storage_daemon.pacing import Pacing
from hostel.net.waker import Waker

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.chardev import CharacterDevice
    from hostel.cli.storage_daemon.exports import Export
    from hostel.cli.storage_daemon.monitor.server import MonitorServer
    from hostel.cli.storage_daemon.nbd import NbdServing


class Daemon:
    """The state of a storage daemon.

    Commands run one at a time, with :attr:`lock` held. Exports serve in threads of their own, without it.

    Args:
        report: told in one line what went wrong and nobody asked about.

    Attributes:
        nodes: the block nodes.
        exports: the exports by their ids, in the order in which they were made.
        jobs: the block jobs.
        nbd: the NBD server; None where there is none.
        devices: character devices by their ids.
        monitors: the QMP monitors.
        closers: called in reverse when the daemon ends, before the nodes are closed: what other modules have running.
        serving: all that the command line asks for is made.
        stopping: the end was asked for.
        closed: everything is being ended, or has been: commands are refused.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.lock = threading.RLock()
        self.nodes = NodeTable()
        self.exports: dict[str, Export] = {}
        self.jobs = JobTable()
        self.nbd: NbdServing | None = None
        self.devices: dict[str, CharacterDevice] = {}
        self.monitors: list[MonitorServer] = []
        self.closers: list[Callable[[], None]] = []
        self.serving = False
        self.stopping = False
        self.closed = False
        self._hearing = contextlib.ExitStack()
        self._hearing.enter_context(sizes.listening(self._resized))
        pacing = Pacing(lambda name, data: self.emit((name, data)))
        self._hearing.callback(pacing.close)
        self._hearing.enter_context(incident.listening(pacing.tell))
        self._waker = Waker()

    def emit(self, *events: tuple[str, Mapping[str, Any]]) -> None:
        """Send events, their names and members, to all monitors, with nothing between them; any thread may."""
        for monitor in self.monitors:
            monitor.emit(events)

    def serve(self) -> None:
        """Let NBD clients in, who may want any of the exports that the command line asks for."""
        with self.lock:
            self.serving = True
            if self.nbd is not None:
                self.nbd.start()

    def stop(self) -> None:
        """Make :meth:`wait` return; any thread and a signal handler may."""
        self.stopping = True
        self.wake()

    def wake(self) -> None:
        """Let :meth:`wait` look again."""
        self._waker.wake()

    def wait(self) -> None:
        """Wait for :meth:`stop`."""
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        with self._waker.woken_by_signals():
            while not self.stopping:
                poll.poll()
                self._waker.clear()

    def close(self) -> None:
        """End everything, in an order in which nothing is used that is gone; the monitors hear of it.

        Raises:
            OSError: an image's held-back metadata could not be written. Everything is ended nevertheless.
        """
        with self.lock:
            self.closed = True
        with contextlib.ExitStack() as stack:
            stack.callback(self._hearing.close)
            stack.enter_context(unrestrained(*self.nodes.values()))
            for device in self.devices.values():
                stack.callback(device.close)
            for monitor in self.monitors:
                stack.callback(monitor.stop)
            stack.callback(self.nodes.close)
            if self.nbd is not None:
                stack.callback(self.nbd.close)
            for export in self.exports.values():
                stack.callback(self.remove_export, export)
            stack.callback(self.jobs.close)
            for closer in self.closers:
                stack.callback(closer)

    def _resized(self) -> None:
        for export in list(self.exports.values()):
            export.resized()

    def remove_export(self, export: Export) -> None:
        """End an export and its clients, and say so.

        Raises:
            OSError: its clients' requests do not end, or what it held back could not be written.
        """
        try:
            export.close()
        finally:
            self.exports.pop(export.id, None)
            self.nodes.forget_closed()  # an overlay that was made for whoever used the disk goes with the last of them
            self.emit(("BLOCK_EXPORT_DELETED", {"id": export.id}))
