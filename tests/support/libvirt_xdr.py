"""The installed libvirt's own XDR routines, and the tables in its daemon: an independent judge of ours."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import NamedTuple

LIBRARY = "libvirt.so.0"
DAEMON = Path("/usr/sbin/libvirtd")
_ENCODE, _DECODE, _FREE = 0, 1, 2
_HANDLE = 256  # bytes; larger than any XDR handle
_ENTRY, _ARGUMENTS, _RESULT, _PRIORITY = 48, 16, 32, 44  # bytes: an entry of a dispatch table, and offsets in it
_PROGBITS, _RELA = 1, 4  # kinds of ELF sections
_WORD = 1  # R_X86_64_64
_OBJECT = 1 << 16  # bytes; larger than any of the structures


class LibvirtXdr:
    """Sends our bytes through libvirt's structures and back."""

    def __init__(self) -> None:
        self._libvirt = ctypes.CDLL(LIBRARY)
        self._rpc = ctypes.CDLL("libtirpc.so.3")

    def knows(self, name: str) -> bool:
        """Whether there is a routine ``xdr_<name>``."""
        return hasattr(self._libvirt, f"xdr_{name}")

    def there_and_back(self, name: str, data: bytes) -> bytes:
        """Decode ``data`` by ``xdr_<name>``, all of it, and encode what came of it."""
        routine = getattr(self._libvirt, f"xdr_{name}")
        value = ctypes.create_string_buffer(_OBJECT)
        source = ctypes.create_string_buffer(data, len(data) + 1)
        reader = self._open(source, len(data), _DECODE)
        assert routine(reader, value), f"xdr_{name} does not take our bytes"
        target = ctypes.create_string_buffer(len(data) + 64)
        writer = self._open(target, len(target), _ENCODE)
        assert routine(writer, value), f"xdr_{name} cannot write what it read"
        left = self._position(reader)
        written = self._position(writer)
        routine(self._open(source, 0, _FREE), value)
        assert left == len(data), f"xdr_{name} takes {left} of {len(data)} bytes"
        return target.raw[:written]

    def _open(self, buffer: ctypes.Array[ctypes.c_char], length: int, operation: int) -> ctypes.Array[ctypes.c_char]:
        handle = ctypes.create_string_buffer(_HANDLE)
        self._rpc.xdrmem_create(handle, buffer, length, operation)
        return handle

    def _position(self, handle: ctypes.Array[ctypes.c_char]) -> int:
        # struct XDR: the operation, then the table of its methods, of which the fifth tells the position.
        (methods,) = struct.unpack_from("P", handle.raw, struct.calcsize("P"))
        pointers = (ctypes.c_void_p * 5).from_address(methods)
        place = pointers[4]
        assert place is not None
        method = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_void_p)(place)
        return int(method(ctypes.addressof(handle)))


class Entry(NamedTuple):
    """One procedure in the daemon's dispatch table: its routines' names without ``xdr_``, empty where it has none."""

    arguments: str
    result: str
    high: bool


def daemon_table(program: str, first: str) -> dict[int, Entry]:
    """The dispatch table of a program in the installed ``libvirtd``, by number.

    An entry is a function, the arguments' size and routine, the result's size and routine, whether it needs a login,
    and the priority. The linker fills in the routines by their names, which is how they are found; ``first`` is the one
    of the arguments of procedure 1.
    """
    elf = DAEMON.read_bytes()
    names = {
        place: name.removeprefix("xdr_")
        for place, name in _relocations(elf).items()
        if name.startswith(f"xdr_{program}_") and name.endswith(("_args", "_ret"))
    }
    start = next(place for place, name in names.items() if name == first) - _ARGUMENTS - _ENTRY
    table = {}
    for number in sorted({(place - start) // _ENTRY for place in names}):
        entry = start + number * _ENTRY
        high = _bytes_at(elf, entry + _PRIORITY, 4) != bytes(4)
        table[number] = Entry(names.get(entry + _ARGUMENTS, ""), names.get(entry + _RESULT, ""), high)
    return table


def _sections(elf: bytes) -> list[tuple[int, ...]]:
    """Name, type, flags, address, offset, size, link, info, alignment and entry size of each section."""
    (offset,) = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<HH", elf, 58)
    return [struct.unpack_from("<IIQQQQIIQQ", elf, offset + index * size) for index in range(count)]


def _relocations(elf: bytes) -> dict[int, str]:
    """The address of each 64-bit word that the linker fills in with a symbol of another file."""
    sections = _sections(elf)
    found = {}
    for section in sections:
        if section[1] != _RELA:
            continue
        symbols = sections[section[6]]
        texts = sections[symbols[6]]
        for at in range(section[4], section[4] + section[5], 24):
            place, info, _ = struct.unpack_from("<QQq", elf, at)
            if info & 0xFFFFFFFF == _WORD:
                (name,) = struct.unpack_from("<I", elf, symbols[4] + 24 * (info >> 32))
                begin = texts[4] + name
                found[place] = elf[begin : elf.index(b"\0", begin)].decode()
    return found


def _bytes_at(elf: bytes, address: int, length: int) -> bytes:
    section = next(s for s in _sections(elf) if s[1] == _PROGBITS and s[3] <= address < s[3] + s[5])
    offset = section[4] + address - section[3]
    return elf[offset : offset + length]
