"""libvirt-python's module ``libvirt_qemu``: calls that only machines of QEMU have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from hostel.libvirt.method import Handle, invoke, invoke_with_files, made, wired
from hostel.wire.rpc.programs import QEMU

VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX: Final = 1
VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_NOCASE: Final = 2
VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK: Final = -2
VIR_DOMAIN_QEMU_AGENT_COMMAND_MIN: Final = -2
VIR_DOMAIN_QEMU_AGENT_COMMAND_DEFAULT: Final = -1
VIR_DOMAIN_QEMU_AGENT_COMMAND_NOWAIT: Final = 0
VIR_DOMAIN_QEMU_AGENT_COMMAND_SHUTDOWN: Final = 60
VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT: Final = 0
VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP: Final = 1


def qemuMonitorCommand(domain: Handle, cmd: str, flags: int) -> str:
    """Give QEMU's monitor a command, with ``VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP`` a person's; its answer."""
    return str(_call(domain, "domain_monitor_command", wired(domain, "domain", "domain"), cmd, flags)[0])


def qemuMonitorCommandWithFiles(
    domain: Handle, cmd: str, files: Sequence[int] = [], flags: int = 0
) -> tuple[str, list[int]]:
    """Likewise, with open files, which stay the caller's; the answer, and files that came back: QEMU sends none."""
    if not isinstance(cmd, str):
        name, given = "virDomainQemuMonitorCommandWithFiles", "None" if cmd is None else type(cmd).__name__
        raise TypeError(f"{name}() argument 2 must be str, not {given}")
    procedure, wire = QEMU.by_name["domain_monitor_command_with_files"], wired(domain, "domain", "domain")
    return str(invoke_with_files(domain, procedure, files, (wire, cmd, flags))[0]), []


def qemuAgentCommand(domain: Handle, cmd: str, timeout: int, flags: int) -> str:
    """Give the guest's agent a command; its answer, waited for ``timeout`` seconds, or as a constant says."""
    wire = wired(domain, "domain", "domain")
    return str(_call(domain, "domain_agent_command", wire, cmd, timeout, flags)[0])


def qemuAttach(conn: Handle, pid_value: int, flags: int) -> Any:
    """Take over a machine that somebody else has started."""
    return made(conn, "domain", _call(conn, "domain_attach", pid_value, flags)[0])


def qemuMonitorEventRegister(
    conn: Any, dom: Handle | None, event: str | None, cb: Callable[..., Any], opaque: Any, flags: int = 0
) -> int:
    """Call ``cb(conn, domain, event, seconds, micros, details, opaque)`` when QEMU says something.

    Args:
        conn: the connection.
        dom: of which domain; None: of all.
        event: QEMU's name of the event, or a pattern of names, as ``flags`` say; None: all.
        cb: who is called.
        opaque: given to it.
        flags: ``VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_``.
    """
    return int(conn._callbacks.add_monitor(dom, event, flags, cb, opaque))


def qemuMonitorEventDeregister(conn: Any, callbackID: int) -> None:
    """Call back no more."""
    conn._callbacks.drop("monitor", callbackID)


def _call(handle: Handle, procedure: str, *arguments: Any) -> Sequence[Any]:
    return invoke(handle, QEMU.by_name[procedure], arguments)
