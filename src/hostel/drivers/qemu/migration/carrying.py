"""What QEMU sends, carried through the stream of the destination's connection."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

from hostel.drivers.base.migration import Tunnel
from hostel.drivers.qemu.machines import failed
from hostel.errors import HostelError

_PIECE: Final = 256 << 10  # bytes
_END_SECONDS: Final = 60.0


class Carrier:
    """A pipe, and the thread that reads it.

    Attributes:
        descriptor: what QEMU is given to write to.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._reads, self.descriptor = os.pipe2(os.O_CLOEXEC)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tunnel", daemon=True)

    def handed(self) -> None:
        """QEMU has the descriptor: carry what it writes until it closes it."""
        os.close(self.descriptor)
        self.descriptor = -1
        self._thread.start()

    def _run(self) -> None:
        try:
            while data := os.read(self._reads, _PIECE):
                self._tunnel.send(data)
        except (HostelError, OSError) as error:
            self._error = error
        finally:
            os.close(self._reads)  # which QEMU notices as it writes

    def finish(self) -> None:
        """All was sent: wait until the destination has it.

        Raises:
            VirtError: ``OPERATION_FAILED``: it has not.
        """
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            raise failed("the tunnel to the destination does not come to its end")
        if self._error is not None:
            raise failed(f"the tunnel to the destination broke: {self._error}")
        self._tunnel.finish()

    def abort(self) -> None:
        """Give up."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            os.close(self._reads)
        with contextlib.suppress(HostelError):
            self._tunnel.abort()
