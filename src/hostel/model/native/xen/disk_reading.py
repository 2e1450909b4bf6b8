"""Disks of Xen's configuration: xl's (xl-disk-configuration(5)) and xm's."""

from __future__ import annotations

import re
from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice, DiskDriver, DiskTarget
from hostel.model.domain.devices.source import FORMATS, DiskSource, Host, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.native.settings import refused
from hostel.model.native.xen.document import is_hvm
from hostel.model.native.xen.entries import Entries

_POSITIONS: Final = ("target", "format", "vdev", "access")
_XL_FORMATS: Final = {
    "": "raw", "raw": "raw", "qcow": "qcow", "qcow2": "qcow2", "vhd": "vhd", "xvhd": "vhd", "qed": "qed",
}  # fmt: skip
_BACKENDS: Final = {"": "qemu", "qdisk": "qemu", "tap": "tap", "phy": "phy"}
_ACCESS: Final = {"": True, "rw": True, "w": True, "ro": False, "r": False, "!": True, "w!": True}
_SHARED: Final = ("!", "w!")
_KEYWORD: Final = re.compile(r"\s*(target|format|vdev|access|devtype|backendtype|cdrom)\b\s*(=?)")
_UNKNOWN: Final = re.compile(r"\s*([a-z-]+)=")
_OLD_PREFIX: Final = re.compile(r"(raw|qcow2?|vhd|file|phy|tap2?|aio):")


def read_xl_disks(entries: Entries, domain: Domain) -> None:
    """Add the disks of xl's configuration.

    Raises:
        ModelError: one is none, or none that a document can have.
    """
    for text in entries.texts("disk"):
        domain.devices.disks.append(_xl_disk(domain, text))


def _words(text: str) -> dict[str, str]:
    """What a disk says, by name: some words by their place, ``target`` to the end."""
    words: dict[str, str] = {}
    free = iter(_POSITIONS)
    rest: str | None = text
    while rest is not None:
        found = _KEYWORD.match(rest)
        if found is not None and found[1] == "target" and found[2]:
            words["target"] = rest[found.end() :].strip()
            break
        part, comma, after = rest.partition(",")
        rest = after if comma else None
        if found is not None and found[2]:
            words[found[1]] = part[found.end() :].strip()
        elif part.strip() == "cdrom":
            words["devtype"] = "cdrom"
        elif unknown := _UNKNOWN.match(part):
            reason = f"a document has nothing that '{unknown[1]}' of '{text}' is"
            raise refused("disk", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        else:
            name = next((name for name in free if name not in words), None)
            if name is None and part.strip():
                raise refused("disk", f"'{part}' of '{text}' is one too many", code=ErrorCode.CONF_SYNTAX)
            if name is not None:
                words[name] = part.strip()
    return words


def _xl_disk(domain: Domain, text: str) -> Disk:
    words = _words(text)
    target, vdev = words.get("target", ""), words.get("vdev", "")
    if _OLD_PREFIX.match(target):
        reason = f"'{text}' has a prefix of xm's; write format= and backendtype="
        raise refused("disk", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    is_cdrom = words.get("devtype") == "cdrom"
    if not vdev:
        raise refused("disk", f"'{text}' does not say vdev", code=ErrorCode.CONF_SYNTAX)
    if not target and not is_cdrom:
        raise refused("disk", f"'{text}' does not say target", code=ErrorCode.CONF_SYNTAX)
    for name, known in (("format", _XL_FORMATS), ("backendtype", _BACKENDS), ("access", _ACCESS)):
        if words.get(name, "") not in known:
            reason = f"{name} of a disk not supported: {words[name]}"
            raise refused("disk", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    is_writable = _ACCESS[words.get("access", "")]
    disk = Disk(target=DiskTarget(dev=vdev, bus=_bus(domain, vdev)), readonly=not is_writable or is_cdrom)
    disk.shareable = words.get("access") in _SHARED
    if is_cdrom:
        disk.device = DiskDevice.CDROM
        disk.driver = DiskDriver(name="qemu", type="raw" if target else None)
        disk.source = DiskSource(file=target) if target else None
        return disk
    driver = _BACKENDS[words.get("backendtype", "")]
    disk.driver = DiskDriver(name=driver, type=_XL_FORMATS[words.get("format", "")])
    if target.startswith("rbd:"):
        disk.type, disk.source = SourceType.NETWORK, _rbd(target)
    elif driver == "phy":
        disk.type, disk.source = SourceType.BLOCK, DiskSource(dev=target)
    else:
        disk.source = DiskSource(file=target)
    return disk


def _bus(domain: Domain, vdev: str) -> DiskBus:
    if vdev.startswith("xvd") or not is_hvm(domain):
        return DiskBus.XEN
    return DiskBus.SCSI if vdev.startswith("sd") else DiskBus.IDE


def _rbd(text: str) -> DiskSource:
    """An image of Ceph: ``rbd:POOL/IMAGE:OPTION=VALUE:…``, with what separates escaped where it does not."""
    image, *options = re.split(r"(?<!\\):", text.removeprefix("rbd:").replace("\\\\", "\\"))
    source = DiskSource(protocol="rbd", name=image)
    for option in options:
        key, _, value = option.partition("=")
        if key == "mon_host":
            source.hosts = [_host(part) for part in re.split(r"\\?[;,]", value) if part.strip()]
        elif key == "conf":
            source.config = value
        elif key != "auth_supported":
            reason = f"a document has nothing that '{key}' of '{text}' is; secrets have to be defined"
            raise refused("disk", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return source


def _host(text: str) -> Host:
    name, _, port = text.replace("\\:", "\0").rpartition("\0")
    if not name:
        name, port = port, ""
    return Host(name=name.replace("\0", ":").strip("[] "), port=port.strip() or None)


def read_xm_disks(entries: Entries, domain: Domain) -> None:
    """Add the disks of xm's configuration.

    Raises:
        ModelError: as :func:`read_xl_disks`.
    """
    for text in entries.texts("disk"):
        domain.devices.disks.append(_xm_disk(domain, text))


def _xm_disk(domain: Domain, text: str) -> Disk:
    """A disk of ``DRIVER:SOURCE,DEVICE,MODE``."""
    parts = text.split(",")
    if len(parts) < 3:
        raise refused("disk", f"'{text}' is no disk of source, device and mode", code=ErrorCode.CONF_SYNTAX)
    source, device, mode = parts[0], parts[1].removeprefix("ioemu:"), ",".join(parts[2:])
    device, _, kind = device.partition(":")
    driver, format_name = "phy", None
    if source and ":" in source:
        driver, _, source = source.partition(":")
        if driver in ("tap", "tap2"):
            word, colon, source = source.partition(":")
            format_name = "raw" if word == "aio" else word
            if not colon or format_name not in FORMATS:
                raise refused("disk", f"Unknown driver type {word}")
    disk = Disk(
        type=SourceType.BLOCK if driver == "phy" else SourceType.FILE,
        device=DiskDevice.CDROM if kind == "cdrom" else DiskDevice.DISK,
        driver=DiskDriver(name=driver, type=format_name or "raw"),
        target=DiskTarget(dev=device, bus=_bus(domain, device)),
        readonly=mode in ("r", "ro"),
        shareable=mode in _SHARED,
    )
    if source:
        disk.source = DiskSource(dev=source) if driver == "phy" else DiskSource(file=source)
    return disk
