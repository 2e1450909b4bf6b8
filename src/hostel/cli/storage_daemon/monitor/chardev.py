"""Commands about character devices, and about those that keep what is written to them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.cli.qemu.failure import Failure
from hostel.cli.storage_daemon import backend
from hostel.cli.storage_daemon.chardev import TYPES, CharacterDevice
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, generic, needed
from hostel.errors import NetworkError, QmpError

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_FORMAT: Final = Parameter("format", values=("utf8", "base64"))


def _is_served(daemon: Daemon, device: CharacterDevice) -> bool:
    return any(monitor.label == device.label for monitor in daemon.monitors)


def _query(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    found = []
    for label, device in daemon.devices.items():
        served = _is_served(daemon, device)
        unused = device.kind == "socket" and device.listens and not served
        filename = f"disconnected:{device.filename}" if unused else device.filename
        found.append({"frontend-open": served, "filename": filename, "label": label})
    return found


def _query_backends(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    return [{"name": name} for name in TYPES]


def _add(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    kind, parameters = backend.read(given["backend"])
    label = given["id"]
    if label in daemon.devices:
        raise generic(f"Chardev with id '{label}' already exists")
    device = _make(daemon, label, kind, parameters)
    daemon.devices[label] = device
    return {"pty": device.filename.removeprefix("pty:")} if kind == "pty" else {}


def _make(daemon: Daemon, label: str, kind: str, parameters: Mapping[str, Any]) -> CharacterDevice:
    try:
        return backend.make(daemon, label, kind, parameters)
    except (Failure, NetworkError) as error:
        raise generic(f"Failed to add chardev '{label}': {error}") from None
    except QmpError as error:
        raise generic(f"Failed to add chardev '{label}': {error.desc}") from None


def _change(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    kind, parameters = backend.read(given["backend"])
    label = given["id"]
    device = daemon.devices.get(label)
    if device is None:
        raise generic(f"Chardev '{label}' does not exist")
    if _is_served(daemon, device):
        raise generic("Chardev user does not support chardev hotswap")
    changed = _make(daemon, label, kind, parameters)
    daemon.devices[label] = changed
    device.close()
    return {"pty": changed.filename.removeprefix("pty:")} if kind == "pty" else {}


def _remove(daemon: Daemon, given: Mapping[str, Any]) -> None:
    device = _device(daemon, given["id"])
    if _is_served(daemon, device):
        raise generic(f"Chardev '{given['id']}' is busy")
    del daemon.devices[given["id"]]
    device.close()


def _send_break(daemon: Daemon, given: Mapping[str, Any]) -> None:
    """Send a break, which no device here has."""
    _device(daemon, given["id"])


def _device(daemon: Daemon, label: str) -> CharacterDevice:
    found = daemon.devices.get(label)
    if found is None:
        raise generic(f"Chardev '{label}' not found")
    return found


def _ring(daemon: Daemon, name: str) -> backend.RingDevice:
    found = daemon.devices.get(name)
    if found is None:
        raise generic(f"Device '{name}' not found")
    if not isinstance(found, backend.RingDevice):
        raise generic(f"{name} is not a ringbuf device")
    return found


def _read_ring(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    ring = _ring(daemon, given["device"])
    if given["size"] <= 0:
        raise generic("size must be greater than zero")
    data = ring.read(given["size"])
    if given.get("format") == "base64":
        return base64.b64encode(data).decode()
    # As in C, the text ends at a NUL.
    return data.split(b"\0")[0].decode("utf-8", "replace")


def _write_ring(daemon: Daemon, given: Mapping[str, Any]) -> None:
    ring, data = _ring(daemon, given["device"]), given["data"].encode("utf-8", "surrogateescape")
    if given.get("format") == "base64":
        try:
            data = binascii.a2b_base64(data, strict_mode=True)
        except (binascii.Error, ValueError):
            raise generic("Base64 data contains invalid characters") from None
    ring.write(data)


COMMANDS: Final = (
    Command("chardev-send-break", _send_break, (needed("id"),)),
    Command("chardev-remove", _remove, (needed("id"),)),
    Command("chardev-change", _change, (needed("id"), needed("backend", Kind.OBJECT))),
    Command("chardev-add", _add, (needed("id"), needed("backend", Kind.OBJECT))),
    Command("ringbuf-read", _read_ring, (needed("device"), needed("size", Kind.INT), _FORMAT)),
    Command("ringbuf-write", _write_ring, (needed("device"), needed("data"), _FORMAT)),
    Command("query-chardev-backends", _query_backends),
    Command("query-chardev", _query),
)
