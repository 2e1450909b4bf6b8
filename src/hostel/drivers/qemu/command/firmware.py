"""Firmware: flash with what runs and with its variables, or a file that is mapped as ROM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hostel.drivers.qemu.command.context import Context, option
from hostel.drivers.qemu.command.objects import Needed, secret
from hostel.drivers.qemu.command.protocol import authentication_secret, protocol
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.disk import Disk, DiskTarget
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.os import Nvram, Os

VARIABLES: Final = "libvirt-pflash1-format"  # the node of UEFI's variables, as libvirt names it
_CODE: Final = "libvirt-pflash0-format"


def flash(domain: Domain, context: Context) -> list[str]:
    """The block nodes of flash, and what opens the server that variables are on."""
    found = domain.os
    if found is None or found.loader is None or found.loader.type != "pflash":
        return []
    loader = found.loader
    code = DiskSource(file=loader.path)
    argv: list[str] = []
    for needed in secrets(domain):
        argv += secret(needed.name, context)
    argv += _node("pflash0", SourceType.FILE, code, loader.format_name or "raw", read_only=bool(loader.readonly))
    if has_variables(found) and (nvram := found.nvram) is not None:
        kind, source = (nvram.type or SourceType.FILE), nvram.source or DiskSource(file=nvram.path)
        argv += _node("pflash1", kind, source, nvram.format_name or "raw", read_only=False)
    return argv


def secrets(domain: Domain) -> Iterator[Needed]:
    """The secrets that flash needs.

    Raises:
        VirtError: ``XML_ERROR``: a server is guarded, and no secret is named.
    """
    nvram = domain.os.nvram if domain.os is not None else None
    if nvram is not None and nvram.source is not None and nvram.source.auth is not None:
        if nvram.source.auth.secret is None:
            raise VirtError(ErrorCode.XML_ERROR, "XML error: <nvram>: <secret> is missing; write its uuid or its usage")
        usage = "ceph" if nvram.source.protocol == "rbd" else "iscsi"
        yield Needed(authentication_secret("pflash1"), nvram.source.auth.secret, usage)


def _node(name: str, kind: SourceType, source: DiskSource, format: str, *, read_only: bool) -> list[str]:
    stand_in = Disk(target=DiskTarget(dev=name), type=kind, source=source)
    where: dict[str, Any] = {**protocol(stand_in, kind, source, name), "node-name": f"libvirt-{name}-storage"}
    image = {"node-name": f"libvirt-{name}-format", "read-only": read_only, "driver": format}
    return [
        *option("-blockdev", {**where, "auto-read-only": True, "discard": "unmap"}),
        *option("-blockdev", {**image, "file": f"libvirt-{name}-storage"}),
    ]


def has_variables(found: Os) -> bool:
    """Whether flash has a part for variables."""
    nvram = found.nvram or Nvram()
    return nvram.path is not None or nvram.source is not None


def machine_properties(domain: Domain) -> list[str]:
    """What of it is the board's."""
    found = domain.os
    if found is None or found.loader is None or found.loader.type != "pflash":
        return []
    return [f"pflash0={_CODE}", *([f"pflash1={VARIABLES}"] if has_variables(found) else [])]


def arguments(domain: Domain) -> list[str]:
    """ROM, and the guard that lets only system management mode write flash."""
    loader = domain.os.loader if domain.os is not None else None
    if loader is None or loader.path is None:
        return []
    if loader.type == "rom":
        return ["-bios", loader.path]
    return ["-global", "driver=cfi.pflash01,property=secure,value=on"] if loader.secure else []
