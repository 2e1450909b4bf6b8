"""Talking to the agent in a guest, over its channel's socket: one JSON object a line.

What an earlier conversation left in the channel is skipped: the agent is asked for a number first, and only what comes
after that number is an answer to us (``guest-sync-delimited``).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hostel.drivers.base import DomainRef
from hostel.drivers.base.agent import AgentTimeout
from hostel.drivers.fault import fault
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.ports import AGENT
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.taint import Taint
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain

_SECONDS: Final = 5.0
_FREEZE_SECONDS: Final = 60.0
_BLOCKED_SECONDS: Final = 3600.0
_CHUNK: Final = 65536
_LARGEST: Final = 64 << 20  # bytes: the guest is not trusted
_DELIMITER: Final = b"\xff"
_UNKNOWN: Final = ("CommandNotFound", "CommandDisabled")


class Agent:
    """A conversation with one agent; close it, or use it as a context manager."""

    def __init__(self, path: Path, seconds: float = _SECONDS) -> None:
        """Connect, and find the agent there; ``seconds`` are given to it for each answer.

        Raises:
            VirtError: ``AGENT_UNRESPONSIVE``.
        """
        self._rest = bytearray()
        self._seconds = seconds
        with kernel.sockets_as(kernel.context_for_sockets(path.parent)):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_SECONDS)
            try:
                self._socket.connect(str(path))
            except OSError as error:
                raise _unresponsive(f"cannot connect to '{path}': {error.strerror or error}") from error
            self._synchronise()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _synchronise(self) -> None:
        number = int.from_bytes(os.urandom(4)) >> 1
        self._send(_DELIMITER + _line("guest-sync-delimited", {"id": number}))
        deadline = time.monotonic() + _SECONDS
        while True:
            reply = self._receive(deadline, after_delimiter=True)
            if reply.get("return") == number:
                return

    def send(self, request: dict[str, Any]) -> None:
        """Give the agent a command whose answer nobody waits for."""
        self._send(json.dumps(request).encode() + b"\n")

    def ask(self, request: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """Give the agent a command; returns all of its answer, also where that is an error.

        Raises:
            VirtError: ``AGENT_UNRESPONSIVE``.
        """
        self.send(request)
        deadline = time.monotonic() + (self._seconds if seconds is None else seconds)
        while True:
            reply = self._receive(deadline)
            if "return" in reply or "error" in reply:
                return reply

    def execute(self, command: str, *, seconds: float | None = None, **arguments: Any) -> Any:
        """Run a command and return its result.

        Raises:
            VirtError: ``AGENT_UNRESPONSIVE``, or ``INTERNAL_ERROR`` with the agent's reason.
        """
        reply = self.ask({"execute": command, **({"arguments": arguments} if arguments else {})}, seconds)
        if "error" in reply:
            raise refusal(command, reply["error"])
        return reply["return"]

    def execute_if_known(self, command: str) -> Any:
        """Likewise; None where the agent has no such command, or is not allowed to run it."""
        reply = self.ask({"execute": command})
        if "error" in reply:
            error = reply["error"]
            if isinstance(error, dict) and error.get("class") in _UNKNOWN:
                return None
            raise refusal(command, error)
        return reply["return"]

    def refused(self, seconds: float) -> dict[str, Any] | None:
        """The answer to what was sent last, where one comes within ``seconds``: of some commands only refusals do."""
        deadline = time.monotonic() + seconds
        try:
            return self._receive(deadline)
        except VirtError:
            if time.monotonic() >= deadline:
                return None
            raise

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(_SECONDS)
            self._socket.sendall(data)
        except OSError as error:
            raise _unresponsive(str(error)) from error

    def _receive(self, deadline: float, *, after_delimiter: bool = False) -> dict[str, Any]:
        while True:
            if after_delimiter and _DELIMITER in self._rest:
                del self._rest[: self._rest.rindex(_DELIMITER) + 1]
                after_delimiter = False
            line, end, rest = self._rest.partition(b"\n")
            if end and not after_delimiter:
                self._rest = bytearray(rest)
                if (reply := _parsed(bytes(line))) is not None:
                    return reply
                continue
            left = deadline - time.monotonic()
            if left <= 0 or len(self._rest) > _LARGEST:
                raise _unresponsive("it does not answer in time")
            try:
                self._socket.settimeout(left)
                data = self._socket.recv(_CHUNK)
            except TimeoutError:
                continue
            except OSError as error:
                raise _unresponsive(str(error)) from error
            if not data:
                raise _unresponsive("the channel was closed")
            self._rest += data


def refusal(command: str, error: Any) -> VirtError:
    """The agent's refusal of a command as libvirt's error."""
    reason = str(error.get("desc", error)) if isinstance(error, dict) else ""
    what = f"unable to execute QEMU agent command '{command}': {reason}"
    return fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)


def _line(command: str, arguments: dict[str, Any]) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        reply = json.loads(line.lstrip(_DELIMITER))
    except (ValueError, RecursionError):
        return None
    if not isinstance(reply, dict):
        return None
    return _whole(reply) if b"\\ud" in line.lower() else reply


def _whole(value: Any) -> Any:
    """An answer with a mark in place of each half of a character: it is no text, and nobody can print it."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value


def _unresponsive(why: str) -> VirtError:
    message = f"Guest agent is not responding: {why}"
    return VirtError(ErrorCode.AGENT_UNRESPONSIVE, message, domain=ErrorDomain.QEMU)


class TalkingCalls(Calls):
    """What the groups of calls share that are answered by an agent."""

    @contextlib.contextmanager
    def _agent(
        self, domain: DomainRef, *, asks_agent: bool = False, taint: Taint | None = None
    ) -> Iterator[tuple[Agent, Domain]]:
        """Talk with a machine's agent; a guest need not answer, so others may have the machine meanwhile.

        Gives the live document too, as it is now. ``asks_agent`` as with :meth:`_running`; ``taint`` is what is to be
        remembered of the machine.
        """
        with self._machines.talking(domain.name), contextlib.ExitStack() as stack:
            with self._running(domain, asks_agent=asks_agent) as machine:
                agent = stack.enter_context(open_agent(machine))
                if taint is not None:
                    machine.taint(taint)
            yield agent, machine.domain


class AgentCalls(TalkingCalls):
    """The guest agent; see :class:`hostel.drivers.base.agent.AgentDriver`."""

    def domain_qemu_agent_command(
        self, domain: DomainRef, command: str, timeout: int = AgentTimeout.DEFAULT
    ) -> str | None:
        """Give the agent a command as it is."""
        seconds = seconds_of(timeout)
        with self._agent(domain, taint=Taint.CUSTOM_GA_COMMAND) as (agent, _):
            request = _requested(command)
            if timeout == AgentTimeout.NOWAIT:
                agent.send(request)
                return None
            return json.dumps(agent.ask(request, seconds), separators=(",", ":"))

    def domain_fs_freeze(self, domain: DomainRef, mountpoints: Sequence[str] = ()) -> int:
        """Stop the guest's file systems."""
        with self._machines.talking(domain.name), self._running(domain) as machine:
            return freeze(machine, mountpoints)

    def domain_fs_thaw(self, domain: DomainRef, mountpoints: Sequence[str] = ()) -> int:
        """Let the guest's file systems go on; the agent knows all or none."""
        del mountpoints
        with self._machines.talking(domain.name), self._running(domain) as machine:
            return thaw(machine)

    def domain_fs_trim(self, domain: DomainRef, mountpoint: str | None = None, minimum: int = 0) -> None:
        """Have the guest say which blocks it does not use."""
        if mountpoint is not None:
            what = "Specifying mount point is not supported for now"
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, what, ErrorDomain.QEMU)
        with self._agent(domain) as (agent, _):
            agent.execute("guest-fstrim", minimum=minimum, seconds=_FREEZE_SECONDS)


def _requested(command: str) -> dict[str, Any]:
    try:
        request = json.loads(command)
    except ValueError as error:
        what = f"'{command}' is no command of the agent's: {error}"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU) from error
    if not isinstance(request, dict):
        raise fault(ErrorCode.INVALID_ARG, f"'{command}' is no JSON object", ErrorDomain.QEMU)
    return request


def seconds_of(timeout: int) -> float:
    """How long an answer is waited for."""
    known: dict[int, float] = {AgentTimeout.BLOCK: _BLOCKED_SECONDS, AgentTimeout.DEFAULT: _SECONDS}
    return known.get(timeout, float(timeout))


def freeze(machine: Running, mountpoints: Sequence[str] = ()) -> int:
    """Stop file systems of the guest.

    Raises:
        VirtError: there is no agent, or it refused.
    """
    with open_agent(machine) as agent:
        if mountpoints:
            names = list(mountpoints)
            return int(agent.execute("guest-fsfreeze-freeze-list", mountpoints=names, seconds=_FREEZE_SECONDS))
        return int(agent.execute("guest-fsfreeze-freeze", seconds=_FREEZE_SECONDS))


def thaw(machine: Running) -> int:
    """Let all file systems of the guest go on.

    Raises:
        VirtError: there is no agent, or it refused.
    """
    with open_agent(machine) as agent:
        return int(agent.execute("guest-fsfreeze-thaw", seconds=_FREEZE_SECONDS))


def open_agent(machine: Running) -> Agent:
    """Connect to a machine's agent.

    Raises:
        VirtError: ``OPERATION_INVALID`` while the guest's processors are stopped, ``ARGUMENT_UNSUPPORTED`` without a
            channel, ``AGENT_UNRESPONSIVE`` where nothing in the guest has it.
    """
    if not machine.ask("query-status").get("running"):
        raise invalid("domain is not running")
    for channel in machine.domain.devices.channels:
        if channel.target is None or channel.target.name != AGENT:
            continue
        path = channel.sources[0].path if channel.sources else None
        devices = {item["label"]: item for item in machine.ask("query-chardev")}
        if path is None or not devices.get(f"char{channel.alias}", {}).get("frontend-open"):
            raise _unresponsive("QEMU guest agent is not connected; start qemu-guest-agent in the guest")
        return Agent(Path(path), seconds_of(machine.agent_timeout))
    what = f"QEMU guest agent is not configured; add a channel of type unix with target name '{AGENT}'"
    raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, what, ErrorDomain.QEMU)
