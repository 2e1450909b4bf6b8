"""What comes through a tunnel, written to where QEMU reads."""

from __future__ import annotations

import os

from hostel.drivers.qemu.machines import failed


class PipeTunnel:
    """A :class:`hostel.drivers.base.migration.Tunnel` into a pipe that a QEMU of this host reads.

    Args:
        descriptor: where to write; the tunnel's from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, data: bytes | memoryview) -> None:
        """Write all of ``data``.

        Raises:
            VirtError: ``OPERATION_FAILED``: QEMU has ended.
        """
        view = memoryview(data)
        try:
            while len(view):
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise failed(f"QEMU takes no more of what it is sent: {error.strerror}") from error

    def finish(self) -> None:
        """Say that this was all."""
        self.abort()

    def abort(self) -> None:
        """Write no more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
