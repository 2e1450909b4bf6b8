"""QEMU's own events, told on the bus: one process of the user's listens to each machine, on its second monitor.

Whoever has listeners tries to hold a machine's watch. When that process ends another one gets it. What QEMU says is
translated; where it means that the machine's state has to follow (a block job has ended, a device is gone, QEMU ended)
the state is put right at once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hostel.drivers.base import DomainRef, PausedReason, RunningReason
from hostel.drivers.events import Event, EventBus, Lifecycle, Listener, Subject, Suspended
from hostel.drivers.qemu import ports, process
from hostel.drivers.qemu.actions import needs_keeper
from hostel.drivers.qemu.machines import GLANCE, Machines
from hostel.drivers.qemu.monitor import Monitor
from hostel.drivers.qemu.running import FOR_AN_ERROR
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import take_lock
from hostel.errors import QmpError, VirtError

_LOOK_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 0.5  # until a machine is looked at again that an operation had, or whose QEMU did not answer
_STOP_SECONDS: Final = 5.0  # that whoever stops listening waits for those who look at a machine
_END_SECONDS: Final = 5.0  # in which QEMU ends, most often, after it has said that its guest has
_FOLLOWED: Final = ("JOB_STATUS_CHANGE", "BLOCK_JOB_READY", "DEVICE_DELETED")
_ENDED: Final = ("STOP", "GUEST_PANICKED")  # after which something may follow
_SUSPENDED: Final = {
    PausedReason.IOERROR: Suspended.IOERROR,
    PausedReason.WATCHDOG: Suspended.WATCHDOG,
    PausedReason.MIGRATION: Suspended.MIGRATED,
    PausedReason.FROM_SNAPSHOT: Suspended.FROM_SNAPSHOT,
}
_MOVED: Final = (RunningReason.MIGRATED, RunningReason.MIGRATION_CANCELED)
_WATCHDOG: Final = ("none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi")
_RECIPIENTS: Final = ("hypervisor", "guest")
_FAILURES: Final = ("ignore", "inject", "fatal", "reset")
_FAMILIES: Final = {"ipv4": 0, "ipv6": 1, "unix": 2}
_PHASES: Final = {"CONNECTED": 0, "INITIALIZED": 1, "DISCONNECTED": 2}

Settle = Callable[[DomainRef, float], bool]  # is given how many seconds an operation has to end that has the machine


class WatchedBus:
    """The session's bus; while somebody listens the machines are watched."""

    def __init__(self, bus: EventBus, machines: Machines, settle: Settle) -> None:
        self._bus = bus
        self._machines = machines
        self._settle = settle

    def listen(self) -> Listener:
        """Begin to listen."""
        listener = _WatchingListener(self._bus, self._machines, self._settle)
        self._bus.enter(listener)
        return listener


class _WatchingListener(Listener):
    """A listener with the threads that watch machines for as long as it is open."""

    def __init__(self, bus: EventBus, machines: Machines, settle: Settle) -> None:
        super().__init__(bus)
        self._watch = Watch(machines, settle)
        self._watch.start()

    def put(self, event: Event | None) -> None:
        """Deliver, and watch a machine from the moment that it is told to have started."""
        if event is not None and event.kind == "lifecycle" and event.detail.get("event") == Lifecycle.STARTED:
            self._watch.look()
        super().put(event)

    def close(self) -> None:
        """Stop listening and watching."""
        self._watch.stop()
        super().close()


class Watch:
    """Watches every machine of a session that nobody else watches."""

    def __init__(self, machines: Machines, settle: Settle) -> None:
        self._machines = machines
        self._settle = settle
        self._stopping = threading.Event()
        self._looking = threading.Event()
        self._watched: dict[str, threading.Thread] = {}
        self._ending: set[threading.Thread] = set()  # those whose QEMU has ended: another run may be watched already
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Watch what runs now, and look each second for what runs since.

        What happens once this has returned is heard: it waits until QEMU serves us, but for one that hangs.
        """
        deadline = time.monotonic() + _CONNECT_SECONDS
        for connected in self._look():
            connected.wait(max(0.0, deadline - time.monotonic()))
        self._thread.start()

    def look(self) -> None:
        """Look now for machines that nobody watches."""
        self._looking.set()

    def stop(self) -> None:
        """End every thread; what they watched may be watched by others."""
        self._stopping.set()
        self._looking.set()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in (self._thread, *self._watched.values(), *self._ending):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._looking.wait(_LOOK_SECONDS)
            self._looking.clear()
            self._look()

    def _look(self) -> list[threading.Event]:
        """Watch what nobody watches; for each machine what is set once we are connected to it."""
        begun = []
        for name in self._machines.statuses.names():
            thread = self._watched.get(name)
            if thread is None or not thread.is_alive():
                status = self._status(name)
                lock = _hold(Path(status.run)) if status is not None and status.pid else None
                if status is not None and lock is not None:
                    begun.append(connected := threading.Event())
                    thread = threading.Thread(
                        target=self._watch, args=(status, lock, connected), name=f"watch {name}", daemon=True
                    )
                    self._watched[name] = thread
                    thread.start()
        return begun

    def _status(self, name: str) -> Status | None:
        try:
            return Status.parse(self._machines.statuses.read(name) or "")
        except (ValueError, VirtError):
            return None

    def _watch(self, status: Status, lock: int, connected: threading.Event) -> None:
        """Tell what one QEMU says until it ends, or we do."""
        domain = status.domain
        ref = DomainRef(domain.name, domain.uuid or "", status.id)
        try:
            monitor = Monitor(process.ground(Path(status.run)) / "events", timeout=5)
            connected.set()
            try:
                if not self._is_of(status):  # what came in its place has its socket at the same path
                    self.look()
                    return
                self._listen(ref, monitor, restarts=domain.on_poweroff == "restart")
            finally:
                monitor.close()
        except QmpError:
            if not self._stopping.is_set():
                self._ending.add(threading.current_thread())
                del self._watched[domain.name]
                self._settles(ref, GLANCE)  # QEMU has ended: its state is put away, which is told
        finally:
            connected.set()
            os.close(lock)
            if threading.current_thread() in self._ending:
                self._ending.discard(threading.current_thread())
                self.look()  # what has come in its place could not be watched for want of the lock

    def _listen(self, ref: DomainRef, monitor: Monitor, *, restarts: bool) -> None:
        """Tell what QEMU says, and have the machine's state follow: later where that cannot be now."""
        looks_at, rest = 0.0, math.inf  # at once: QEMU may have said something before
        is_settled = True
        cause: Suspended | None = None
        ran, is_told = self._was_running(ref), False
        while not self._stopping.is_set():
            if time.monotonic() >= looks_at:
                is_settled = self._settles(ref, GLANCE if is_settled else 0)  # what QEMU says waits meanwhile
                looks_at = time.monotonic() + (rest if is_settled else _AGAIN_SECONDS)
                if is_settled and ran:
                    ran, is_told = False, self._tells_missed(ref)
            event = monitor.wait(0.5)
            if event is None:
                continue
            cause = cause_of_stop(event) or cause
            if self._told(ref, event, cause, is_told=is_told and event["event"] == "STOP") and is_settled:
                looks_at = 0.0
            ran = ran and event["event"] != "STOP"
            if event["event"] == "RESUME":
                cause, is_told = None, False
            if event["event"] == "SHUTDOWN" and not restarts:
                rest = _END_SECONDS  # it may hang (hostel.drivers.qemu.hanging)
                looks_at = min(looks_at, time.monotonic() + rest)

    def _was_running(self, ref: DomainRef) -> bool:
        """Whether it is written down that the guest runs."""
        status = self._status(ref.name)
        return status is not None and status.paused == 0

    def _tells_missed(self, ref: DomainRef) -> bool:
        """Tell that QEMU has stopped a guest for an error before it was heard: whether it has."""
        status = self._status(ref.name)
        if status is None or status.paused not in FOR_AN_ERROR:
            return False
        self._publish(ref, translate("STOP", {}, status))
        return True

    def _publish(self, ref: DomainRef, told: Iterable[tuple[str, dict[str, Any]]]) -> None:
        for kind, detail in told:
            self._machines.bus.publish(Event(Subject.DOMAIN, kind, ref.name, ref.uuid, ref.id, detail))

    def _is_of(self, run: Status) -> bool:
        """Whether the machine is in this run still."""
        found = self._status(run.domain.name)
        return found is not None and found.id == run.id

    def _settles(self, ref: DomainRef, wait: float) -> bool:
        """Whether the machine's state has followed; False where somebody else has it, or QEMU does not answer."""
        with contextlib.suppress(VirtError, OSError):
            return self._settle(ref, wait)
        return True

    def _told(self, ref: DomainRef, event: Mapping[str, Any], cause: Suspended | None, *, is_told: bool) -> bool:
        """Tell an event; whether the machine's state has to follow.

        Args:
            ref: the machine.
            event: what QEMU says.
            cause: why it stops its guest, where it says so and does so by itself.
            is_told: whether that is known of it already.
        """
        name, data = str(event["event"]), event.get("data", {})
        stamp = event.get("timestamp", {})
        said = {
            "seconds": int(stamp.get("seconds", -1)),
            "micros": max(0, int(stamp.get("microseconds", 0))),
            "details": json.dumps(event["data"], separators=(",", ":")) if "data" in event else None,
        }
        self._machines.bus.publish(Event(Subject.MONITOR, name, ref.name, ref.uuid, ref.id, said))
        if name in _FOLLOWED:
            return True
        status = self._status(ref.name)
        if status is None or is_told:
            return False
        self._publish(ref, translate(name, data, status, cause))
        return name in _ENDED and (cause is not None or needs_keeper(status.domain) or bool(status.locks))


@contextlib.contextmanager
def kept_off(run: Path) -> Iterator[None]:
    """Let nobody begin to watch a machine in the meantime; whoever hears that it has started does then."""
    lock = _hold(run)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _hold(run: Path) -> int | None:
    """Take the watch of a machine; None when somebody has it."""
    try:
        return take_lock(run / "watch")
    except OSError:
        return None


def cause_of_stop(event: Mapping[str, Any]) -> Suspended | None:
    """Why QEMU stops its guest by itself, as it says just before it does; None for all else that it says."""
    match event["event"], event.get("data", {}).get("action"):
        case "BLOCK_IO_ERROR", "stop":
            return Suspended.IOERROR
        case "WATCHDOG", "pause":
            return Suspended.WATCHDOG
        case _:
            return None


def translate(
    name: str, data: Mapping[str, Any], status: Status, cause: Suspended | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """QEMU's event in libvirt's words: kinds with their details; none for what is of no interest.

    Where QEMU has stopped the guest by itself, ``cause`` is why.
    """
    match name:
        case "STOP":
            reason = PausedReason(status.paused) if status.paused in set(PausedReason) else PausedReason.UNKNOWN
            return [_lifecycle(Lifecycle.SUSPENDED, cause or _SUSPENDED.get(reason, Suspended.PAUSED))]
        case "RESUME":
            return [_lifecycle(Lifecycle.RESUMED, int(status.running in _MOVED))]
        case "SHUTDOWN":
            if status.ending or status.destruction.exists() or status.domain.on_poweroff == "restart":
                return []
            return [_lifecycle(Lifecycle.SHUTDOWN, 1 if data.get("guest") else 2)]
        case "MIGRATION_PASS":
            return [("migration-iteration", {"iteration": int(data["pass"])})]
        case "RESET":
            return [("reboot", {})]
        case "GUEST_PANICKED":
            return [_lifecycle(Lifecycle.CRASHED, 0)]
        case "SUSPEND" | "SUSPEND_DISK":
            kind = "pm-suspend" if name == "SUSPEND" else "pm-suspend-disk"
            return [(kind, {"reason": 0}), _lifecycle(Lifecycle.PMSUSPENDED, int(name == "SUSPEND_DISK"))]
        case "WAKEUP":
            return [("pm-wakeup", {"reason": 0}), _lifecycle(Lifecycle.STARTED, 4)]
        case "RTC_CHANGE":
            return [("rtc-change", {"utcoffset": int(data["offset"])})]
        case "WATCHDOG":
            action = str(data.get("action", "none"))
            return [("watchdog", {"action": _WATCHDOG.index(action) if action in _WATCHDOG else 0})]
        case "BALLOON_CHANGE":
            return [("balloon-change", {"actual": int(data["actual"]) >> 10})]
        case "GUEST_CRASHLOADED":
            return [_lifecycle(Lifecycle.CRASHED, 1)]
        case "MEMORY_DEVICE_SIZE_CHANGE":
            return [("memory-device-size-change", {"alias": str(data.get("id", "")), "size": int(data["size"])})]
        case "MEMORY_FAILURE":
            return [("memory-failure", _memory_failure(data))]
        case "DEVICE_TRAY_MOVED":
            return [("tray-change", {"alias": _last(data.get("id")), "reason": 0 if data["tray-open"] else 1})]
        case "DEVICE_UNPLUG_GUEST_ERROR" | "MEM_UNPLUG_ERROR":
            return [("device-removal-failed", {"alias": str(data.get("device", ""))})]
        case "BLOCK_IO_ERROR":
            return _io_error(data, status)
        case "BLOCK_WRITE_THRESHOLD":
            return _threshold(data, status)
        case "VSERPORT_CHANGE":
            return _port(data, status)
        case "VNC_CONNECTED" | "VNC_INITIALIZED" | "VNC_DISCONNECTED":
            return [("graphics", _graphics(_PHASES[name.removeprefix("VNC_")], data))]
        case "SPICE_CONNECTED" | "SPICE_INITIALIZED" | "SPICE_DISCONNECTED":
            return [("graphics", _graphics(_PHASES[name.removeprefix("SPICE_")], data))]
        case _:
            return []


def _memory_failure(data: Mapping[str, Any]) -> dict[str, Any]:
    told = data.get("flags", {})
    return {
        "recipient": _RECIPIENTS.index(str(data["recipient"])) if data["recipient"] in _RECIPIENTS else 0,
        "action": _FAILURES.index(str(data["action"])) if data["action"] in _FAILURES else 0,
        "flags": int(bool(told.get("action-required"))) | int(bool(told.get("recursive"))) << 1,
    }


def _lifecycle(event: Lifecycle, detail: int) -> tuple[str, dict[str, Any]]:
    return "lifecycle", {"event": int(event), "detail": int(detail)}


def _last(path: object) -> str:
    """The device of a path such as ``/machine/peripheral/ide0-1-0``."""
    parts = str(path or "").split("/")
    return parts[3] if parts[:3] == ["", "machine", "peripheral"] and len(parts) > 3 else parts[-1]


def _io_error(data: Mapping[str, Any], status: Status) -> list[tuple[str, dict[str, Any]]]:
    from hostel.drivers.qemu.block.chain import images

    node = str(data.get("node-name", ""))
    path = alias = ""
    for disk in status.domain.devices.disks:
        for image in images(disk):
            if node in (f"libvirt-{image.number}-format", f"libvirt-{image.number}-storage"):
                path, alias = image.path, disk.alias or ""
    action = {"ignore": 0, "stop": 1, "report": 2}.get(str(data.get("action")), 0)
    reason = "enospc" if data.get("nospace") else ""
    told = {"srcPath": path, "devAlias": alias, "action": action}
    return [("io-error", told), ("io-error-reason", {**told, "reason": reason})]


def _threshold(data: Mapping[str, Any], status: Status) -> list[tuple[str, dict[str, Any]]]:
    from hostel.drivers.qemu.block.chain import images

    node = str(data.get("node-name", ""))
    numbers = {"threshold": int(data["write-threshold"]), "excess": int(data["amount-exceeded"])}
    for disk in status.domain.devices.disks:
        for depth, image in enumerate(images(disk)):
            if node == f"libvirt-{image.number}-storage":
                told = {"path": image.path, **numbers}
                numbered = [("block-threshold", {"dev": f"{disk.target.dev}[{image.number}]", **told})]
                return ([("block-threshold", {"dev": disk.target.dev, **told})] if depth == 0 else []) + numbered
    return []


def _port(data: Mapping[str, Any], status: Status) -> list[tuple[str, dict[str, Any]]]:
    for channel in status.domain.devices.channels:
        if channel.alias == data.get("id") and channel.target is not None and channel.target.name == ports.AGENT:
            state = ports.CONNECTED if data.get("open") else ports.DISCONNECTED
            return [("agent-lifecycle", {"state": state, "reason": ports.CHANNEL})]
    return []


def _graphics(phase: int, data: Mapping[str, Any]) -> dict[str, Any]:
    server, client = data.get("server", {}), data.get("client", {})
    told: dict[str, Any] = {"phase": phase, "authScheme": str(server.get("auth", ""))}
    for word, end in (("local", server), ("remote", client)):
        family = _FAMILIES.get(str(end.get("family")), 0)
        service = end.get("service", end.get("port", ""))  # as VNC calls it, and SPICE
        told[word] = {"family": family, "node": str(end.get("host", "")), "service": str(service)}
    names = (("x509dname", client.get("x509_dname")), ("saslUsername", client.get("sasl_username")))
    told["subject"] = [{"type": kind, "name": str(name)} for kind, name in names if name]
    return told
