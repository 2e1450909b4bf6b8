"""What firmware tells the guest of its machine: SMBIOS blocks, and files for firmware configuration.

The orders of blocks and values are libvirt's (``qemuBuildSmbiosCommandLine``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu.command.context import Context, escape
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain
from hostel.model.domain.sysinfo import Entry, Sysinfo

if TYPE_CHECKING:
    from hostel.model.host_sysinfo import HostSysinfo

_BIOS: Final = ("vendor", "version", "date", "release")
_SYSTEM: Final = ("manufacturer", "product", "version", "serial", "uuid", "sku", "family")
_BASE_BOARD: Final = ("manufacturer", "product", "version", "serial", "asset", "location")
_CHASSIS: Final = ("manufacturer", "version", "serial", "asset", "sku")


def arguments(domain: Domain, context: Context) -> list[str]:
    """``-smbios`` and ``-fw_cfg``.

    Raises:
        VirtError: ``XML_ERROR``: there are no blocks to tell; ``CONFIG_UNSUPPORTED``: the host's cannot be read, or
            QEMU cannot tell them.
    """
    argv: list[str] = []
    source = _source(domain, context)
    if source is not None:
        is_hosts = domain.os is not None and domain.os.smbios == "host"
        for block in _blocks(source, is_hosts=is_hosts):
            argv += ["-smbios", block]
    for info in domain.sysinfos:
        if info.type == "fwcfg":
            for entry in info.entries:
                content = f"string={escape(entry.value)}" if entry.value else f"file={escape(entry.file or '')}"
                argv += ["-fw_cfg", f"name={escape(entry.name or '')},{content}"]
    return argv


def _source(domain: Domain, context: Context) -> Sysinfo | HostSysinfo | None:
    mode = domain.os.smbios if domain.os is not None else None
    if mode == "host":
        found = context.smbios()
        if found is None:
            raise unsupported("Host SMBIOS information is not available; it needs root and the program dmidecode")
        return found
    if mode != "sysinfo":
        return None
    for info in domain.sysinfos:
        if info.type == "smbios":
            return info
    raise fault(ErrorCode.XML_ERROR, f"Domain '{domain.name}' sysinfo are not available", ErrorDomain.QEMU)


def _blocks(source: Sysinfo | HostSysinfo, *, is_hosts: bool) -> Iterator[str]:
    if source.bios is not None:
        yield _block(0, _BIOS, source.bios.entries)
    if source.system is not None:
        # Two machines must not have one UUID.
        names = tuple(name for name in _SYSTEM if not (is_hosts and name == "uuid"))
        yield _block(1, names, source.system.entries, ignored=("uuid",) if is_hosts else ())
    if len(source.base_boards) > 1:
        raise unsupported("qemu does not support more than one entry to Type 2 in SMBIOS table")
    for board in source.base_boards:
        yield _block(2, _BASE_BOARD, board.entries)
    if source.chassis is not None:
        yield _block(3, _CHASSIS, source.chassis.entries)
    if source.oem_strings is not None:
        yield ",".join(["type=11", *(f"value={escape(entry.value or '')}" for entry in source.oem_strings.entries)])


def _block(number: int, names: Sequence[str], entries: Sequence[Entry], ignored: Sequence[str] = ()) -> str:
    given = {entry.name: entry.value or "" for entry in entries}
    for name in given:
        if name not in names and name not in ignored:
            raise unsupported(f"QEMU has no '{name}' in SMBIOS block {number}; remove the entry")
    return ",".join([f"type={number}", *(f"{name}={escape(given[name])}" for name in names if name in given)])
