"""Names of files as FAT keeps them: 11 bytes in capitals, and behind several more entries the name itself.

Microsoft's *FAT32 File System Specification* 1.03, "Short Directory Entries" and "Long Directory Entries".
"""

from __future__ import annotations

import struct
from typing import Final

from hostel.errors import InvalidImage

_MAX_LENGTH: Final = 255  # UTF-16 units
_ENTRY_UNITS: Final = 13  # of them in an entry
_LONG: Final = 0x0F  # the attributes of an entry that holds a part of a name
_LAST: Final = 0x40  # set in the number of a name's last part, which stands first
_FORBIDDEN: Final = frozenset('"*/:<>?\\|')
_SHORT: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789$%'-_@~`!(){}^#&")
_SMALL_BASE: Final = 0x08  # in the byte behind the attributes
_SMALL_SUFFIX: Final = 0x10
_MOST_ALIKE: Final = 999_999  # short names that differ in their number only


def check(name: str, path: str) -> None:
    """Refuse a name that no guest could use.

    Args:
        name: as the host has it.
        path: what the error calls it.

    Raises:
        InvalidImage: FAT has no such names.
    """
    shown = ascii(path)
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        raise InvalidImage(f"The name {shown} is no UTF-8") from None
    if units > _MAX_LENGTH:
        raise InvalidImage(f"The name {shown} has {units} characters; FAT has {_MAX_LENGTH} at most")
    wrong = next((each for each in name if each in _FORBIDDEN or each < " " or each == "\x7f"), None)
    if wrong is not None:
        raise InvalidImage(f"The name {shown} holds {wrong!r}, which FAT does not allow")
    if name[-1] in ". ":
        raise InvalidImage(f"The name {shown} ends with a dot or a blank, which FAT does not keep")


def folded(name: str) -> str:
    """What is the same of names that are one for FAT, which does not tell capitals from others."""
    return "".join(each.upper() if len(each.upper()) == 1 else each for each in name)


class ShortNames:
    """The short names of one directory."""

    def __init__(self) -> None:
        self._used: set[bytes] = set()
        self._numbers: dict[tuple[str, str], int] = {}

    def add(self, name: str) -> bytes:
        """A short name for a file, 11 bytes; of one that is none itself a number stands at its end.

        Raises:
            InvalidImage: there are too many alike.
        """
        stem, extension = _stem(name)
        base, suffix = _valid(stem, 8), _valid(extension, 3)
        if (base, suffix) == (stem.upper(), extension.upper()) and base:
            short = _padded(base, suffix)
            if short not in self._used:
                self._used.add(short)
                return short
        first = self._numbers.get((base, suffix), 1)
        for number in range(first, _MOST_ALIKE):
            tail = f"~{number}"
            short = _padded(base[: 8 - len(tail)] + tail, suffix)
            if short not in self._used:
                self._used.add(short)
                self._numbers[base, suffix] = number + 1
                return short
        raise InvalidImage(f"Too many files are named like {name!a}")


def _stem(name: str) -> tuple[str, str]:
    """A name and its extension; a dot at the start begins none."""
    stem, dot, extension = name.rpartition(".")
    return (stem, extension) if dot and stem.strip(".") else (name, "")


def _valid(text: str, length: int) -> str:
    return "".join(each for each in text.upper() if each in _SHORT)[:length]


def _padded(base: str, suffix: str) -> bytes:
    return f"{base:<8}{suffix:<3}".encode("ascii")


def shown(short: bytes) -> str:
    """A short name as it is written."""
    base, suffix = short[:8].decode("ascii").rstrip(), short[8:].decode("ascii").rstrip()
    return f"{base}.{suffix}" if suffix else base


def long_entries(name: str, short: bytes) -> bytes:
    """The entries that stand before that of ``short``; none where the name is the short one."""
    if name == shown(short):
        return b""
    units = name.encode("utf-16-le")
    count = -(-len(units) // (2 * _ENTRY_UNITS))
    if len(units) % (2 * _ENTRY_UNITS):
        units += b"\0\0"
    units = units.ljust(count * 2 * _ENTRY_UNITS, b"\xff")
    entries = []
    for number in range(count, 0, -1):
        part = units[(number - 1) * 26 : number * 26]
        order = number | (_LAST if number == count else 0)
        fields = (order, part[:10], _LONG, 0, _checksum(short), part[10:22], 0, part[22:])
        entries.append(struct.pack("<B10sBBB12sH4s", *fields))
    return b"".join(entries)


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total >> 1 | (total & 1) << 7) + byte) & 0xFF
    return total


class LongName:
    """A name that is put together of its entries, which stand before the short one, the last part first."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._missing = 0
        self._sum = -1

    def forget(self) -> None:
        """What stood there belongs to nothing."""
        self._parts, self._missing, self._sum = [], 0, -1

    def add(self, slot: bytes) -> None:
        """The next entry; one that does not go on where the last one was begins anew, or belongs to nothing."""
        number = slot[0] & ~_LAST
        if slot[0] & _LAST:
            self._parts, self._missing, self._sum = [], number, slot[13]
        elif number != self._missing or slot[13] != self._sum:
            self.forget()
        if self._missing:
            self._parts.append(slot[1:11] + slot[14:26] + slot[28:32])
            self._missing -= 1
            if not self._missing:
                self._missing = -1  # whole

    def take(self, short: bytes) -> str:
        """The name that stood before a short one, if it is that one's; else nothing.

        Raises:
            ValueError: it is no UTF-16.
        """
        whole, total, parts = self._missing == -1, self._sum, self._parts
        self.forget()
        if not whole or total != _checksum(short):
            return ""
        units = b"".join(reversed(parts))
        end = next((at for at in range(0, len(units), 2) if units[at : at + 2] == b"\0\0"), len(units))
        return units[:end].decode("utf-16-le")


def shown_as(slot: bytes) -> str:
    """The name of an entry that has no long one: letters of both parts may be small ones, as Windows NT has it.

    Raises:
        ValueError: it has none.
    """
    short = b"\xe5" + slot[1:11] if slot[0] == 0x05 else slot[:11]
    base, suffix = short[:8].decode("cp437").rstrip(" "), short[8:].decode("cp437").rstrip(" ")
    if not base:
        raise ValueError("a short name has nothing before its dot")
    base = base.lower() if slot[12] & _SMALL_BASE else base
    suffix = suffix.lower() if slot[12] & _SMALL_SUFFIX else suffix
    return f"{base}.{suffix}" if suffix else base
