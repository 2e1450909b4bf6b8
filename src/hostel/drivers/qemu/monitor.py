"""QMP: the only module that knows ``qemu.qmp``. QEMU's monitor serves one client, so connect, ask, close."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostel.errors import QmpError

_POLL = 0.02  # seconds
_SO_ACCEPTCON = 1 << 16  # Linux's include/linux/net.h: the flag of a socket that listens


class Monitor:
    """A connection to one QEMU's monitor; the caller holds the domain's lock."""

    def __init__(self, path: Path, *, timeout: float = 10) -> None:
        """Connect and negotiate.

        Raises:
            QmpError: ``Disconnected`` when nobody answers there, ``Timeout`` after ``timeout`` seconds.
        """
        import logging

        from qemu.qmp.legacy import QEMUMonitorProtocol

        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
        self._timeout = timeout
        self._client = QEMUMonitorProtocol(str(path))
        self._client.settimeout(timeout)
        try:
            with self._translated():
                self._client.connect()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from qemu.qmp import QMPError

        try:
            yield
        except TimeoutError as error:
            raise QmpError("Timeout", f"QEMU's monitor did not answer within {self._timeout:.0f} seconds") from error
        except QMPError as error:
            kind = getattr(error, "error", None)
            if kind is not None and hasattr(kind, "class_"):
                raise QmpError(str(kind.class_), str(kind.desc)) from error
            raise QmpError("Disconnected", str(error).partition("\n")[0]) from error
        except (OSError, EOFError) as error:
            raise QmpError("Disconnected", str(error)) from error
        except KeyboardInterrupt:
            self._forget()
            raise

    def _forget(self) -> None:
        """Keep asyncio from printing what becomes of the task that was interrupted: nobody will ask it."""
        import asyncio

        asyncio.get_event_loop_policy().get_event_loop().set_exception_handler(lambda loop, context: None)

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result.

        Raises:
            QmpError: QEMU refused, did not answer in time, or went away.
        """
        from qemu.qmp.error import QMPError

        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        with self._translated():
            try:
                reply = self._client.cmd_obj(request)
            except QMPError:
                raise
        if "error" in reply:
            error: Any = reply["error"]
            raise QmpError(str(error.get("class", "GenericError")), str(error.get("desc", "")))
        return reply.get("return")

    def close(self) -> None:
        """Hang up; QEMU runs on."""
        with contextlib.suppress(Exception):
            self._client.close()


@contextlib.contextmanager
def connect(path: Path, *, timeout: float = 10) -> Iterator[Monitor]:
    """Connect for the length of a ``with`` block."""
    monitor = Monitor(path, timeout=timeout)
    try:
        yield monitor
    finally:
        monitor.close()


def wait_for_socket(path: Path, gone: object, *, timeout: float = 30) -> bool:
    """Wait until QEMU listens on its socket; False when ``gone()`` says that it ended, or in vain."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if _listens(path):
            return True
        if callable(gone) and gone():
            return False
        time.sleep(_POLL)
    return False


def _listens(path: Path) -> bool:
    """Whether a socket takes connections: QEMU makes the file a moment before it listens."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines():
            fields = line.split(None, 7)
            if len(fields) == 8 and fields[7] == str(path):
                return int(fields[3], 16) & _SO_ACCEPTCON != 0
    return path.exists()
