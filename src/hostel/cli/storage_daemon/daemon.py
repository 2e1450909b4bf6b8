"""What runs under the monitor: nodes, exports, the NBD server; and what ends it all."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hostel.block import incident, sizes
from hostel.block.jobs.table import JobTable
from hostel.block.nodes import NodeTable
from hostel.block.restraint import unrestrained
from hostel.cli.qemu.ending import PATIENCE, Ending
from hostel.cli.storage_daemon.pacing import Pacing
from hostel.net.waker import Waker

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.chardev import CharacterDevice
    from hostel.cli.storage_daemon.exports import Export
    from hostel.cli.storage_daemon.monitor.server import MonitorServer
    from hostel.cli.storage_daemon.nbd import NbdServing

_CHANGE: Final = 5.0  # seconds for a command or job to end that may be changing what is to be closed next


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
        self.serving = False
        self.stopping = False
        self.closed = False
        self._hearing = contextlib.ExitStack()
        self._hearing.enter_context(sizes.listening(self._resized))
        pacing = Pacing(lambda name, data: self.emit((name, data)))
        self._hearing.callback(pacing.close)
        self._hearing.enter_context(incident.listening(pacing.tell))
        self._waker = Waker()
        self._ending = Ending(report)

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
        """Make :meth:`wait` return, and :meth:`close` wait no more; any thread and a signal handler may."""
        self.stopping = True
        self._ending.give_up()
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

        What hangs holds up nothing that does not need it, and all is waited for until one moment: see :class:`Ending`.

        Raises:
            BlockError: something failed, or did not end; the text names what.
        """
        self.closed = True
        ending = self._ending
        with contextlib.ExitStack() as stack:
            stack.callback(self._hearing.close)
            stack.enter_context(unrestrained(*self.nodes.values()))
            for device in self.devices.values():
                stack.callback(device.close)
            ending.begin({"a monitor's command": self._wait_for_command}, turn=_CHANGE, rewires=True)
            jobs = {f"job '{job.id}'": partial(self.jobs.end, job, PATIENCE) for job in self.jobs.values()}
            ending.begin(jobs, turn=_CHANGE, rewires=True)
            # A command that hangs may be ending one.
            exports = [export for export in list(self.exports.values())[::-1] if not export.shutting_down]
            ending.begin({f"export '{export.id}'": partial(self.remove_export, export) for export in exports})
            if self.nbd is not None:
                ending.begin({"the NBD server": self.nbd.close})
            ending.close({f"node '{node.name}'": node for node in self.nodes.take_owned()})
            try:
                ending.finish()
            finally:
                ending.begin({f"monitor '{monitor.label}'": monitor.stop for monitor in self.monitors})

    def _wait_for_command(self) -> None:
        """Wait for the command that runs, where one does; there are no more after it."""
        with self.lock:
            pass

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
