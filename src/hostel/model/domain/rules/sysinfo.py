"""Rules for what firmware tells the guest of its machine (``virSysinfoParseXML``)."""

from __future__ import annotations

import re
import uuid as uuids
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.domain import Domain
from hostel.model.domain.sysinfo import Sysinfo

_DATE: Final = re.compile(r"\s*(\d+)/\s*(\d+)/\s*(\d+)", re.ASCII)
_RESERVED: Final = ("opt/ovmf/", "opt/org.qemu/")


def check_sysinfo(domain: Domain) -> None:
    """Hold dates, identifiers and names of files against what firmware can have.

    Raises:
        ModelError: one is none, or another one than the domain's.
    """
    for position, info in enumerate(domain.sysinfos, 1):
        path = f"/domain/sysinfo[{position}]"
        _check_date(info, path)
        _check_uuid(info, path, domain.uuid)
        if info.type == "fwcfg":
            _check_files(info, path)


def _check_date(info: Sysinfo, path: str) -> None:
    for entry in info.bios.entries if info.bios is not None else []:
        if entry.name != "date" or entry.value is None:
            continue
        found = _DATE.fullmatch(entry.value)
        month, day, year = map(int, found.groups()) if found is not None else (0, 0, 0)
        if not (1 <= month <= 12 and 1 <= day <= 31 and (year < 100 or year >= 1900)):
            raise ModelError(f"{path}/bios/entry", "Invalid BIOS 'date' format", code=ErrorCode.XML_DETAIL)


def _check_uuid(info: Sysinfo, path: str, uuid: str | None) -> None:
    for entry in info.system.entries if info.system is not None else []:
        if entry.name != "uuid" or entry.value is None:
            continue
        try:
            written = str(uuids.UUID(entry.value.strip()))
        except ValueError:
            reason = "malformed <sysinfo> uuid element"
            raise ModelError(f"{path}/system/entry", reason, code=ErrorCode.XML_DETAIL) from None
        if written != uuid:
            reason = "UUID mismatch between <uuid> and <sysinfo>"
            raise ModelError(f"{path}/system/entry", reason, code=ErrorCode.XML_DETAIL)


def _check_files(info: Sysinfo, path: str) -> None:
    for entry in info.entries:
        name = entry.name or ""
        if not name.startswith("opt/"):
            raise ModelError(f"{path}/entry/@name", "Invalid firmware name", code=ErrorCode.CONFIG_UNSUPPORTED)
        if name.startswith(_RESERVED):
            reason = "That firmware name is reserved"
            raise ModelError(f"{path}/entry/@name", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
