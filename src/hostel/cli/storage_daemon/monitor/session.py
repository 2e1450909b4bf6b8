"""One client's conversation with the monitor: greeting, negotiation, commands; bytes in, answers out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.cli.qemu.release import QEMU_VERSION
from hostel.cli.storage_daemon.monitor import registry
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic
from hostel.cli.storage_daemon.monitor.stream import JsonStream
from hostel.codec.qobject import compact_json, pretty_json
from hostel.errors import HostelError, QmpError

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

NEGOTIATION: Final = "qmp_capabilities"
CAPABILITIES: Final = ("oob",)
_MEMBERS: Final = ("execute", "exec-oob", "arguments", "id")
_TELLING: Final = 1.0  # seconds for events to go out before an answer
_NEGOTIATED: Final = (Parameter("enable", Kind.ARRAY),)


def version() -> dict[str, Any]:
    """Which QEMU's commands these are."""
    from hostel import __version__

    major, minor, micro = map(int, QEMU_VERSION.split("."))
    return {"qemu": {"micro": micro, "minor": minor, "major": major}, "package": f"Hostel {__version__}"}


class Session:
    """Takes what a client sends, runs commands, and gives what goes back.

    Attributes:
        ready: capabilities are agreed on, so that events may be sent.
    """

    def __init__(self, daemon: Daemon, *, pretty: bool = False) -> None:
        self.ready = False
        self._daemon = daemon
        self._stream = JsonStream()
        self._to_text = pretty_json if pretty else compact_json
        self._oob = False

    def greeting(self) -> bytes:
        """What is sent first."""
        return self.encode({"QMP": {"version": version(), "capabilities": list(CAPABILITIES)}})

    def encode(self, message: Mapping[str, Any]) -> bytes:
        """A message as it is sent."""
        return f"{self._to_text(message)}\r\n".encode("ascii")

    def event(self, name: str, data: Mapping[str, Any]) -> bytes:
        """An event as it is sent."""
        microseconds = time.time_ns() // 1000
        stamp = {"seconds": microseconds // 1_000_000, "microseconds": microseconds % 1_000_000}
        return self.encode({"timestamp": stamp, "event": name, **({"data": data} if data else {})})

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Run the commands in what was received; the answer to each is given before the next runs."""
        for request in self._stream.receive(data):
            yield self.encode(self._answer(request))

    def _answer(self, request: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = {"return": self._dispatch(request)}
        except QmpError as error:
            answer = {"error": {"class": error.error_class, "desc": error.desc}}
        except (HostelError, OSError) as error:
            answer = {"error": {"class": "GenericError", "desc": _describe(error)}}
        except Exception as error:
            # A mistake of ours fails the command, and must not take the exports with it.
            description = f"internal error: {type(error).__name__}: {error}"
            self._daemon.report(description)
            answer = {"error": {"class": "GenericError", "desc": description}}
        if isinstance(request, Mapping) and "id" in request:
            answer["id"] = request["id"]
        return answer

    def _dispatch(self, request: Any) -> Any:
        if isinstance(request, ValueError):
            raise generic(str(request))
        name, arguments, is_oob = _read(request, oob=self._oob)
        if not self.ready and name != NEGOTIATION:
            raise QmpError("CommandNotFound", f"Expecting capabilities negotiation with '{NEGOTIATION}'")
        if name == NEGOTIATION:
            self._negotiate(arguments)
            return {}
        command = registry.commands().get(name)
        if command is None:
            raise QmpError("CommandNotFound", f"The command {name} has not been found")
        if is_oob:
            raise generic(f"The command {name} does not support OOB")
        with self._daemon.lock:
            if self._daemon.closed:
                raise generic("The daemon is shutting down")
            checked = arguments if command.parameters is None else check(command.parameters, arguments)
            found = command.run(self._daemon, checked)
        # A client that is told of a state has had the events that led to it, where it takes them.
        self._daemon.jobs.wait_told(_TELLING)
        return {} if found is None else found

    def _negotiate(self, arguments: Mapping[str, Any]) -> None:
        if self.ready:
            raise QmpError("CommandNotFound", "Capabilities negotiation is already complete, command ignored")
        for index, name in enumerate(check(_NEGOTIATED, arguments).get("enable", ())):
            if not isinstance(name, str):
                raise generic(f"Invalid parameter type for 'enable[{index}]', expected: string")
            if name not in CAPABILITIES:
                raise generic(f"Parameter 'enable[{index}]' does not accept value '{name}'")
            self._oob = True
        registry.commands()  # what they import takes longer than most of them
        self.ready = True


def _read(request: Any, *, oob: bool) -> tuple[str, Mapping[str, Any], bool]:
    """Take a request apart; ``oob`` allows commands out of band."""
    if not isinstance(request, Mapping):
        raise generic("QMP input must be a JSON object")
    for member in request:
        if member not in _MEMBERS or (member == "exec-oob" and not oob):
            raise generic(f"QMP input member '{member}' is unexpected")
    if "execute" in request and "exec-oob" in request:
        raise generic("QMP input member 'exec-oob' clashes with 'execute'")
    member = "exec-oob" if "exec-oob" in request else "execute"
    if member not in request:
        raise generic("QMP input lacks member 'execute'")
    name, arguments = request[member], request.get("arguments", {})
    if not isinstance(name, str):
        raise generic(f"QMP input member '{member}' must be a string")
    if not isinstance(arguments, Mapping):
        raise generic("QMP input member 'arguments' must be an object")
    return name, arguments, member == "exec-oob"


def _describe(error: HostelError | OSError) -> str:
    if isinstance(error, HostelError):
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror or error)
