"""Pool type ``scsi``: the logical units of a SCSI or Fibre Channel adapter."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.backends.device import DeviceVolumes, device_facts
from hostel.drivers.storage.backends.stable import is_stable, stable_path
from hostel.drivers.storage.document import PoolDefinition, PoolSizes, VolumeFacts
from hostel.drivers.storage.holding import translating
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.storage import Adapter

_DISKS: Final = (0, 5)  # of SCSI's types of devices: disks and CD-ROMs
_HOST: Final = re.compile(r"(?:scsi_)?host(\d+)")
_SCAN: Final = "- - -\0"  # every bus, target and unit, as libvirt writes it
_SERIAL_TOOLS: Final = ("/lib/udev/scsi_id", "/usr/lib/udev/scsi_id")


class LogicalUnits(DeviceVolumes):
    """The volume half of a backend whose volumes are logical units of an adapter."""

    def adapter(self, pool: PoolDefinition) -> int:
        """The number of the adapter that has them."""
        raise AssertionError("each type knows its adapter")

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The sum of the units; nothing is free."""
        volumes = list(self.describe_all(pool))
        return pool, PoolSizes(sum(facts.capacity for facts in volumes), sum(facts.allocation for facts in volumes), 0)

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """Every disk and CD-ROM of the adapter that has a name in the pool's folder."""
        unit = re.compile(rf"{self.adapter(pool)}:(\d+):(\d+):(\d+)")
        folder = f"{self.host.sysfs}/bus/scsi/devices"
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            match = unit.fullmatch(name)
            device = _block_device(f"{folder}/{name}") if match else None
            if match is None or device is None:
                continue
            node = f"{self.host.dev}/{device}"
            path = stable_path(pool.path, node)
            if path == node and is_stable(pool.path):
                continue  # its name would not stay
            facts = device_facts("unit:" + ":".join(match.groups()), path)
            if facts is not None:
                found.append(facts._replace(key=unit_key(path) or path))
        return found


class ScsiBackend(LogicalUnits):
    """An adapter of the host."""

    def check(self, pool: PoolDefinition) -> None:
        """A folder below ``/dev``.

        Raises:
            VirtError: ``INVALID_ARG``.
        """
        super().check(pool)
        require_folder(pool)

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether the adapter is there."""
        try:
            return os.path.exists(self._folder(pool))
        except VirtError:
            return False

    def start(self, pool: PoolDefinition) -> None:
        """Make a virtual port of Fibre Channel where the pool is on one that is not there yet."""
        adapter = pool.source.adapter or Adapter()
        if adapter.type == "fc_host" and self._by_names(adapter) is None:
            self._port(adapter, "vport_create")
            tool.settle()

    def stop(self, pool: PoolDefinition) -> None:
        """Remove the virtual port, where it is the pool's own."""
        adapter = pool.source.adapter or Adapter()
        if adapter.type == "fc_host" and adapter.managed and self._by_names(adapter) is not None:
            self._port(adapter, "vport_delete")

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Have the adapter look for its units again."""
        folder = self._folder(pool)
        with translating(f"Could not open '{folder}/scan' to trigger host scan", pool.name, folder):
            _write(f"{folder}/scan", _SCAN)
        tool.settle()
        return pool

    def adapter(self, pool: PoolDefinition) -> int:
        """The number of the adapter, by its name, its place or its names of Fibre Channel's."""
        adapter = pool.source.adapter or Adapter()
        if adapter.type == "fc_host":
            number = self._by_names(adapter)
            if number is None:
                detail = f"Failed to find SCSI host with wwnn='{adapter.wwnn}', wwpn='{adapter.wwpn}'"
                raise fault(ErrorCode.XML_ERROR, detail, ErrorDomain.STORAGE)
            return number
        if adapter.parent_address is not None:
            return self._by_place(adapter)
        match = _HOST.fullmatch(adapter.name or "")
        if match is None:
            raise _internal(f"Invalid adapter name '{adapter.name}' for SCSI pool")
        return int(match[1])

    def _folder(self, pool: PoolDefinition) -> str:
        return f"{self.host.sysfs}/class/scsi_host/host{self.adapter(pool)}"

    def _by_names(self, adapter: Adapter) -> int | None:
        folder = f"{self.host.sysfs}/class/fc_host"
        wanted = [_bare(adapter.wwnn), _bare(adapter.wwpn)]
        for name in _names(folder):
            match = _HOST.fullmatch(name)
            if match and [_bare(_read(f"{folder}/{name}/{part}")) for part in ("node_name", "port_name")] == wanted:
                return int(match[1])
        return None

    def _by_place(self, adapter: Adapter) -> int:
        where = adapter.parent_address
        assert where is not None and where.address is not None  # the document's rules
        place = where.address
        wanted = f"{place.domain:04x}:{place.bus:02x}:{place.slot:02x}.{place.function:x}"
        folder = f"{self.host.sysfs}/class/scsi_host"
        for name in _names(folder):
            match = _HOST.fullmatch(name)
            parts = os.path.realpath(f"{folder}/{name}").split("/")
            if match and wanted in parts and _read(f"{folder}/{name}/unique_id") == str(where.unique_id):
                return int(match[1])
        raise _internal(f"Failed to find scsi_host using PCI '{wanted}' and unique_id='{where.unique_id}'")

    def _port(self, adapter: Adapter, what: str) -> None:
        """Make or remove a virtual port on the adapter above it."""
        parent = self._parent(adapter)
        for kind in ("fc_host", "scsi_host"):
            path = f"{self.host.sysfs}/class/{kind}/host{parent}/{what}"
            if os.path.exists(path):
                with translating(f"Write of '{adapter.wwpn}:{adapter.wwnn}' to '{path}' failed", "vport", path):
                    _write(path, f"{_bare(adapter.wwpn)}:{_bare(adapter.wwnn)}")
                return
        raise fault(
            ErrorCode.OPERATION_INVALID, f"host{parent} has no virtual ports: it has no '{what}'", ErrorDomain.STORAGE
        )

    def _parent(self, adapter: Adapter) -> int:
        if adapter.parent is not None:
            match = _HOST.fullmatch(adapter.parent)
            if match is None:
                raise fault(
                    ErrorCode.XML_ERROR, f"parent '{adapter.parent}' is not properly formatted", ErrorDomain.STORAGE
                )
            return int(match[1])
        folder = f"{self.host.sysfs}/class/fc_host"
        parts = {
            "node_name": adapter.parent_wwnn,
            "port_name": adapter.parent_wwpn,
            "fabric_name": adapter.parent_fabric_wwn,
        }
        for name in _names(folder):
            match = _HOST.fullmatch(name)
            if match is None or not os.path.exists(f"{folder}/{name}/vport_create"):
                continue
            if all(
                value is None or _bare(_read(f"{folder}/{name}/{part}")) == _bare(value)
                for part, value in parts.items()
            ):
                return int(match[1])
        raise _internal("Unable to find a vHBA: no adapter of this host that is meant has virtual ports")


def require_folder(pool: PoolDefinition) -> None:
    """Refuse a folder in which no device can have a name.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if not is_stable(pool.path) and pool.path.rstrip("/") != "/dev":
        detail = f"unable to use target path '{pool.path}': it is /dev, or a folder below it such as /dev/disk/by-id"
        raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)


def _block_device(unit: str) -> str | None:
    """The name of a unit's block device; None where it is no disk."""
    kind = _read(f"{unit}/type")
    if not kind.isdecimal() or int(kind) not in _DISKS:
        return None
    return next(iter(_names(f"{unit}/block")), None)


def unit_key(path: str) -> str:
    """What a unit says that it is called; empty where it says nothing."""
    program = next((name for name in _SERIAL_TOOLS if os.path.exists(name)), None)
    if program is None:
        return ""
    command = [program, "--replace-whitespace", "--whitelisted", "--device", path]
    said = tool.run(command, expected=range(256)).out.splitlines()
    return said[0] if said else ""


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _bare(name: str | None) -> str:
    return (name or "").lower().removeprefix("0x")


def _internal(detail: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)
