"""Disks for Xen's configuration: xl's and xm's (``xenFormatXLDisk``, ``xenFormatXMDisk``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.assignments import Value
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.disk import Disk, DiskDevice
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.native.xen.entries import EntryWriter, no_comma

_XL_FORMATS: Final = {"vhd": "xvhd", "qcow": "qcow", "qcow2": "qcow2", "qed": "qed"}
_BACKENDS: Final = {"qemu": "qdisk", "file": "qdisk", "tap": "tap", "phy": "phy"}


def write_xl_disks(domain: Domain, writer: EntryWriter) -> None:
    """Write disks for xl.

    Raises:
        ModelError: one is none that xl has.
    """
    writer.add("disk", [_xl_disk(domain, disk) for disk in _disks(domain)])


def write_xm_disks(domain: Domain, writer: EntryWriter) -> None:
    """Write disks for xm.

    Raises:
        ModelError: one is none that xm has.
    """
    disks: list[Value] = [_xm_disk(domain, disk) for disk in _disks(domain)]
    writer.add("disk", disks)


def _disks(domain: Domain) -> list[Disk]:
    for disk in domain.devices.disks:
        path = domain.devices.path(disk)
        if disk.transient is not None:
            reason = "transient disks not supported yet"
            raise ModelError(f"{path}/transient", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        if disk.device == DiskDevice.FLOPPY:
            raise ModelError(f"{path}/@device", "Xen has no floppies", code=ErrorCode.CONFIG_UNSUPPORTED)
        no_comma(f"{path}/target/@dev", disk.target.dev)
    return domain.devices.disks


def _path_of(domain: Domain, disk: Disk) -> str | None:
    """The file or device of a disk."""
    source = disk.source
    if disk.type not in (SourceType.FILE, SourceType.BLOCK, SourceType.DIR):
        reason = f"unsupported disk type {disk.type}"
        raise ModelError(f"{domain.devices.path(disk)}/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return (source.file or source.dev or source.dir) if source is not None else None


def _access(disk: Disk, writable: str, read_only: str) -> str:
    if disk.readonly:
        return read_only
    return "!" if disk.shareable else writable


def _xl_disk(domain: Domain, disk: Disk) -> str:
    driver = disk.driver.name if disk.driver is not None else None
    words = [
        f"format={_XL_FORMATS.get(disk.image_format, 'raw')}",
        f"vdev={disk.target.dev}",
        f"access={_access(disk, 'rw', 'ro')}",
    ]
    if driver is not None:
        if driver not in _BACKENDS:
            path = f"{domain.devices.path(disk)}/driver/@name"
            raise ModelError(path, f"xl has no backend '{driver}'", code=ErrorCode.CONFIG_UNSUPPORTED)
        words.append(f"backendtype={_BACKENDS[driver]}")
    if disk.device == DiskDevice.CDROM:
        words.append("devtype=cdrom")
    if disk.type == SourceType.NETWORK and disk.source is not None:
        words.append(f"target={_rbd(domain.devices.path(disk), disk.source)}")
    elif (path_of := _path_of(domain, disk)) is not None:
        words.append(f"target={path_of}")  # last: it goes to the end
    return ",".join(words)


def _rbd(path: str, source: DiskSource) -> str:
    if source.protocol != "rbd":
        reason = f"Unsupported network block protocol '{source.protocol}'"
        raise ModelError(f"{path}/source/@protocol", reason, code=ErrorCode.NO_SUPPORT)
    name = source.name or ""
    if ":" in name:
        reason = f"':' not allowed in RBD source volume name '{name}'"
        raise ModelError(f"{path}/source/@name", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    hosts: list[str] = []
    for host in source.hosts:
        address = (host.name or "").replace(":", "\\:")
        address = f"[{address}]" if ":" in address else address
        hosts.append(address + (f"\\\\:{host.port}" if host.port is not None else ""))
    ending = ":mon_host=" + "\\\\;".join(hosts) if hosts else ""
    return f"rbd:{name}:auth_supported=none{ending}"


def _xm_disk(domain: Domain, disk: Disk) -> str:
    source = _path_of(domain, disk)
    text = ""
    if source is not None:
        no_comma(f"{domain.devices.path(disk)}/source", source)
        driver = disk.driver.name if disk.driver is not None else None
        if driver is None:
            text = "phy:" if disk.type == SourceType.BLOCK else "file:"
        else:
            text = f"{driver}:"
            if driver in ("tap", "tap2"):
                text += "aio:" if disk.image_format == "raw" else f"{disk.image_format}:"
        text += source
    kind = ":cdrom" if disk.device == DiskDevice.CDROM else ""
    return f"{text},{disk.target.dev}{kind},{_access(disk, 'w', 'r')}"
