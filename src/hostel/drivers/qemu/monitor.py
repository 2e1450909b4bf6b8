"""QMP, QEMU's monitor protocol: one JSON object a line. The monitor serves one client, so connect, ask, close.

Blocking and small on purpose: an asyncio client would bring an event loop into the caller's thread, which may have one
of its own, and it cannot be interrupted cleanly.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.pause import Pause
from hostel.errors import QmpError

ANSWER_SECONDS: Final = 10.0  # that QEMU has to say what is asked, unless somebody waits less
ACT_SECONDS: Final = 120.0  # and to do what it is told: it may wait for a disk that is slow, or away for a while
_LISTEN_SECONDS: Final = 1.0
_CHUNK: Final = 65536
_EVENTS: Final = 1000  # that are kept for whoever waits
_OF_QMP: Final = frozenset({"event", "return", "error"})
_MAX_LINE: Final = 64 << 20  # bytes: more is no answer of QEMU's
_OPEN: Final = "whether it has done what it was told is found out when the domain is next used"
_LOOKING: Final = ("query-", "qom-get", "qom-list", "qmp_capabilities")


class Monitor:
    """A connection to one QEMU's monitor; the caller holds the domain's lock.

    Once an answer was not waited for, be it too late or its caller interrupted, nothing more is asked: whether the
    command was carried out is not known, and what would be undone on the belief that it was not might be in use.

    Attributes:
        timeout: how many seconds QEMU has for each answer to a question; to act it has two minutes at least.
        hurries: whether it has no longer to act.
        silence: what is to be said of such an answer that is still to come; empty while there is none.
        shuts_down: whether QEMU has said that it does.
    """

    def __init__(self, path: Path, *, timeout: float = ANSWER_SECONDS, hurries: bool = False) -> None:
        """Connect and negotiate.

        Args:
            path: QEMU's socket.
            timeout: see above.
            hurries: likewise.

        Raises:
            QmpError: ``Disconnected`` when nobody answers there, ``Timeout`` when not in time.
        """
        self.timeout = timeout
        self.hurries = hurries
        self._deadline = time.monotonic() + timeout
        # QEMU gives the answer to a client's last command to the client that comes after it.
        self._ours, self._asked = secrets.token_hex(4), itertools.count(1)
        self.silence = ""
        self.shuts_down = False
        self._rest = bytearray()
        self._events: list[dict[str, Any]] = []
        self._folder = path.parent
        with kernel.sockets_as(kernel.context_for_sockets(path.parent)):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with self._translated(timeout):
                self._connect(str(path))
            self._await_greeting(path)
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def _connect(self, path: str) -> None:
        refused_until, pause = time.monotonic() + _LISTEN_SECONDS, Pause()
        while True:
            self._socket.settimeout(self._left())
            try:
                self._socket.connect(path)
                return
            except ConnectionRefusedError:  # bound, and not listening yet; or nobody is there any more
                if time.monotonic() > refused_until:
                    raise
            except BlockingIOError:  # others wait to be served already
                pass
            pause()

    def _await_greeting(self, path: Path) -> None:
        """Read the greeting; what comes before it QEMU had still to say to the client that we come after."""
        while "QMP" not in (said := self._receive(self.timeout)):
            if not said.keys() & _OF_QMP:
                raise QmpError("Disconnected", f"'{path}' is not the socket of QEMU's monitor")

    def _left(self) -> float:
        """Seconds until the deadline.

        Raises:
            TimeoutError: it has passed.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    @contextlib.contextmanager
    def _translated(self, limit: float) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise QmpError("Timeout", f"QEMU's monitor did not answer within {limit:.0f} seconds") from error
        except OSError as error:
            raise QmpError("Disconnected", error.strerror or str(error)) from error

    def execute(self, command: str, files: Sequence[int] = (), /, **arguments: Any) -> Any:
        """Run a command and return its result.

        Args:
            command: its name.
            files: open files that go along with it.
            arguments: the command's own.

        Raises:
            QmpError: QEMU refused, did not answer in time, or went away.
        """
        if self.silence:
            raise QmpError("Timeout", self.silence)
        is_short = self.hurries or command.startswith(_LOOKING)
        limit = self.timeout if is_short else max(self.timeout, ACT_SECONDS)
        self._deadline = time.monotonic() + limit
        own = f"{self._ours}-{next(self._asked)}"
        request: dict[str, Any] = {"execute": command, "id": own}
        if arguments:
            request["arguments"] = arguments
        kernel.label_pipes(self._folder, *files)
        try:
            with self._translated(limit):
                self._socket.settimeout(self._left())
                line = json.dumps(request).encode() + b"\n"
                sent = socket.send_fds(self._socket, [line], files) if files else 0
                self._socket.sendall(line[sent:])
            reply = self._answer(own, limit)
        except QmpError as error:
            if error.error_class == "Timeout":
                self.silence = error.desc if command.startswith(_LOOKING) else f"{error.desc}; {_OPEN}"
                raise QmpError("Timeout", self.silence) from error
            raise
        except BaseException:
            self.silence = f"QEMU's answer was not waited for; {_OPEN}"
            raise
        if "return" in reply:
            return reply["return"]
        refusal = reply["error"]
        raise QmpError(str(refusal.get("class", "GenericError")), str(refusal.get("desc", "")))

    def _answer(self, own: str, limit: float) -> dict[str, Any]:
        """The answer to a command; one without an id is to what QEMU could not read."""
        while True:
            reply = self._receive(limit)
            if "return" in reply or isinstance(reply.get("error"), dict):
                if reply.get("id", own) == own:
                    return reply
            else:
                self._keep(reply)

    def _keep(self, reply: dict[str, Any]) -> None:
        """Keep an event for those who wait for one; the oldest are dropped where nobody does."""
        if "event" in reply:
            self.shuts_down = self.shuts_down or reply["event"] == "SHUTDOWN"
            self._events.append(reply)
            del self._events[:-_EVENTS]

    def wait(self, timeout: float, *names: str) -> dict[str, Any] | None:
        """The next event with one of these names, or any where none is given; None when none came in time.

        Raises:
            QmpError: QEMU went away.
        """
        self._deadline = deadline = time.monotonic() + timeout
        while True:
            for position, event in enumerate(self._events):
                if not names or event["event"] in names:
                    return self._events.pop(position)
            if time.monotonic() >= deadline:
                return None
            try:
                self._keep(self._receive(timeout))
            except QmpError as error:
                if error.error_class != "Timeout":
                    raise

    def pass_file(self, name: str, descriptor: int) -> None:
        """Give QEMU an open file, which commands then know as ``fd:<name>``.

        Raises:
            QmpError: QEMU refused, or went away.
        """
        self.execute("getfd", [descriptor], fdname=name)

    def _receive(self, limit: float) -> dict[str, Any]:
        """Read one object; ``limit`` is how many seconds there were when it was asked for."""
        with self._translated(limit):
            while b"\n" not in self._rest:
                self._socket.settimeout(self._left())
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise QmpError("Disconnected", "QEMU hung up")
                self._rest += data
                if len(self._rest) > _MAX_LINE:
                    raise QmpError("Disconnected", "QEMU's answer does not end")
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise QmpError("Disconnected", "QEMU's monitor does not speak JSON") from error
        if not isinstance(reply, dict):
            raise QmpError("Disconnected", "QEMU's monitor answered something else than an object")
        return reply

    def close(self) -> None:
        """Hang up; QEMU runs on."""
        self._socket.close()


@contextlib.contextmanager
def connect(path: Path, *, timeout: float = ANSWER_SECONDS) -> Iterator[Monitor]:
    """Connect for the length of a ``with`` block."""
    monitor = Monitor(path, timeout=timeout)
    try:
        yield monitor
    finally:
        monitor.close()


def wait_for_socket(path: Path, gone: object, *, timeout: float = 30) -> bool:
    """Wait until QEMU has made its socket; False when ``gone()`` says that it ended, or in vain."""
    deadline, pause = time.monotonic() + timeout, Pause()
    while time.monotonic() < deadline:
        if path.exists():
            return True
        if callable(gone) and gone():
            return False
        pause()
    return False
