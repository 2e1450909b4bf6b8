"""What comes through a tunnel, written to where QEMU reads."""

from __future__ import annotations

import os

from hostel.drivers.qemu.machines import failed
from hostel.net.descriptor import Descriptor


class PipeTunnel:
    """A :class:`hostel.drivers.base.migration.Tunnel` into a pipe that a QEMU of this host reads.

    Args:
        descriptor: where to write; the tunnel's from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = Descriptor(descriptor)  # who gives up is not the thread that sends

    def send(self, data: bytes | memoryview) -> None:
        """Write all of ``data``.

        Raises:
            VirtError: ``OPERATION_FAILED``: QEMU has ended, or the tunnel was given up.
        """
        view = memoryview(data)
        try:
            with self._descriptor.use() as descriptor:
                while len(view) and not self._descriptor.is_closed:
                    view = view[os.write(descriptor, view) :]
        except OSError as error:
            raise failed(f"QEMU takes no more of what it is sent: {error.strerror}") from error
        if len(view):
            raise failed("the tunnel was given up")

    def finish(self) -> None:
        """Say that this was all."""
        self.abort()

    def abort(self) -> None:
        """Write no more; QEMU hears of it once a write under way has ended."""
        self._descriptor.close()
