"""What is in an OVA: a virtual machine as one tar archive, with a description (OVF), disks, and digests of both.

DMTF's *Open Virtualization Format* (DSP0243) 1.1. Nothing is unpacked: a disk is told by its place in the archive,
where ``raw`` shows it by ``offset`` and ``size``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from hostel.codec import tar
from hostel.codec.tar import Member
from hostel.codec.xmltext import parse
from hostel.errors import InvalidImage, ModelError
from hostel.units import INT64_MAX, GiB, KiB, MiB

Read = Callable[[int, int], bytes]

_MAX_MEMBERS: Final = 1024
_MAX_TEXT: Final = 4 * MiB  # bytes of a description or manifest
_PIECE: Final = MiB
_DIGEST: Final = re.compile(r"\s*(SHA1|SHA256|SHA384|SHA512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]+)\s*")
_UNITS: Final = {"byte": 1, "byte * 2^10": KiB, "byte * 2^20": MiB, "byte * 2^30": GiB, "byte * 2^40": 1024 * GiB}


class Disk(NamedTuple):
    """A disk that the description names.

    Attributes:
        name: the file's.
        offset: where it begins in the archive, bytes.
        size: bytes of the file.
        capacity: bytes of the disk, by the description; None where it does not say.
        format: an address that stands for the format, by the description.
    """

    name: str
    offset: int
    size: int
    capacity: int | None
    format: str

    @property
    def window(self) -> int:
        """The file's bytes, filled up to whole sectors by the archive."""
        return -(-self.size // tar.BLOCK) * tar.BLOCK


class Ova(NamedTuple):
    """What an archive holds.

    Attributes:
        members: its files.
        disks: those of them that the description calls disks.
        outside: files that the description names and the archive does not hold.
        digests: by the names of files, an algorithm and a digest in hexadecimal; None without a manifest.
    """

    members: tuple[Member, ...]
    disks: tuple[Disk, ...]
    outside: tuple[str, ...]
    digests: dict[str, tuple[str, str]] | None


def read_ova(read: Read, length: int) -> Ova | None:
    """Read an archive's table, description and manifest; None where it begins with something else than a description.

    Raises:
        InvalidImage: the archive, the description or the manifest is malformed.
    """
    found: list[Member] = []
    for member in tar.members(read, length, _MAX_MEMBERS):
        if not found and not member.name.lower().endswith(".ovf"):
            return None
        if any(member.name == other.name for other in found):
            raise InvalidImage(f"The archive holds {member.name!a} twice: programs will not agree on which it is")
        found.append(member)
    if not found:
        return None
    disks, outside = _disks(_text(read, found[0]), {member.name: member for member in found})
    manifest = next((member for member in found if member.name.lower().endswith(".mf")), None)
    digests = None if manifest is None else _digests(_text(read, manifest))
    return Ova(tuple(found), disks, outside, digests)


def _text(read: Read, member: Member) -> str:
    if member.size > _MAX_TEXT:
        raise InvalidImage(f"{member.name!a} has {member.size} bytes; {_MAX_TEXT} are the most")
    try:
        return read(member.offset, member.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidImage(f"{member.name!a} is no UTF-8") from None


def _disks(text: str, members: dict[str, Member]) -> tuple[tuple[Disk, ...], tuple[str, ...]]:
    try:
        root = parse(text, "ovf")
    except ModelError as error:
        raise InvalidImage(f"The description cannot be read: {error}") from None
    files: dict[str, str] = {}
    for element in _elements(root, "File"):
        name, compression = _attribute(element, "href"), _attribute(element, "compression")
        if compression not in ("", "identity"):
            raise InvalidImage(f"{name!a} is compressed ({compression}), which is not supported")
        files[_attribute(element, "id")] = name
    disks = []
    for element in _elements(root, "Disk"):
        reference = _attribute(element, "fileRef")
        if not reference:
            continue  # an empty disk, which is made when the machine is
        if reference not in files:
            raise InvalidImage(f"The description's disk refers to a file that it does not list: {reference!a}")
        member = members.get(files[reference])
        if member is not None:
            capacity = _capacity(_attribute(element, "capacity"), _attribute(element, "capacityAllocationUnits"))
            disks.append(Disk(member.name, member.offset, member.size, capacity, _attribute(element, "format")))
    return tuple(disks), tuple(name for name in files.values() if name not in members)


def _elements(root: Any, name: str) -> list[Any]:
    """Elements by their name without its name space, of which each version of OVF has its own."""
    return [each for each in root.iter() if isinstance(each.tag, str) and each.tag.rpartition("}")[2] == name]


def _attribute(element: Any, name: str) -> str:
    return next((str(value) for key, value in element.attrib.items() if key.rpartition("}")[2] == name), "")


def _capacity(text: str, units: str) -> int | None:
    unit = _UNITS.get(" ".join((units or "byte").split()))
    if unit is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    capacity = int(text) * unit
    return capacity if capacity <= INT64_MAX else None


def _digests(text: str) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        match = _DIGEST.fullmatch(line)
        if match is None:
            raise InvalidImage(f"A line of the manifest is none: {line[:80]!a}")
        algorithm, name, digest = match.groups()
        if name in found:
            raise InvalidImage(f"The manifest names {name!a} twice")
        found[name] = algorithm.lower(), digest.lower()
    return found


def wrong_digests(ova: Ova, read: Read) -> list[str]:
    """What is wrong with the files that the manifest names, or should; every one of them is read as a whole."""
    if ova.digests is None:
        return ["The archive has no manifest"]
    members = {member.name: member for member in ova.members}
    wrong = [f"The manifest names {name!a}, which is not in the archive" for name in ova.digests if name not in members]
    for member in ova.members:
        if member.name.lower().endswith((".mf", ".cert")):
            continue
        if member.name not in ova.digests:
            wrong.append(f"The manifest does not name {member.name!a}")
            continue
        algorithm, expected = ova.digests[member.name]
        summed = hashlib.new(algorithm, usedforsecurity=False)
        for at in range(0, member.size, _PIECE):
            summed.update(read(member.offset + at, min(_PIECE, member.size - at)))
        if summed.hexdigest() != expected:
            wrong.append(f"{member.name!a} has not the {algorithm} digest that the manifest says: it was changed")
    return wrong
