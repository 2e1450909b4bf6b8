"""Files with a machine's saved memory, in libvirt's format (``qemu_saveimage.h``), so that both read the other's.

A header with the length of the document, the document with 64 KiB of room to edit it, then what QEMU sends when it
migrates. While it is being written the first bytes say that it is not whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from hostel.block import permission
from hostel.cause.holder import find_holders
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu import document
from hostel.drivers.qemu.opening import open_named
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain

_WHOLE: Final = b"LibvirtQemudSave"
_PART: Final = b"LibvirtQemudPart"
_VERSION: Final = 2
_HEADER: Final = struct.Struct("=16s5I56x")
_ROOM: Final = 64 << 10
_LARGEST: Final = 64 << 20  # bytes of a document
_COMPRESSIONS: Final = {1: "gzip", 2: "bzip2", 3: "xz", 4: "lzop"}  # virQEMUSaveFormat
_EFFORT: Final[Mapping[str, tuple[str, ...]]] = {"xz": ("-3",)}
_PACK_SECONDS: Final = 120.0  # for what a program has not written yet when it has read all


class Saved(NamedTuple):
    """What a file says before the memory begins.

    Attributes:
        xml: the live document of the machine.
        running: whether it ran when it was saved.
        start: where the memory begins, in bytes.
        unpack: the command that unpacks the memory, where it is compressed.
    """

    xml: str
    running: bool
    start: int
    unpack: tuple[str, ...] = ()


class Packing(NamedTuple):
    """How memory is packed on its way into a file.

    Attributes:
        number: the file's for it (``virQEMUSaveFormat``).
        command: the program that does it; empty where the memory is written as it comes.
    """

    number: int = 0
    command: tuple[str, ...] = ()


UNPACKED: Final = Packing()


def packing(name: str, kind: str) -> Packing:
    """The way of a name: ``raw``, or a program's.

    Args:
        name: as ``qemu.conf`` has it.
        kind: what is packed: ``save``, ``dump`` or ``snapshot``.

    Raises:
        VirtError: ``OPERATION_FAILED``: there is no such way, or the program is not there.
    """
    if name == "raw":
        return UNPACKED
    number = next((number for number, known in _COMPRESSIONS.items() if known == name), None)
    if number is None:
        ways = f"raw, {', '.join(_COMPRESSIONS.values())}"
        raise _failed(f"Invalid {kind} image format specified in configuration file: '{name}'; write one of {ways}")
    program = shutil.which(name)
    if program is None:
        what = f"Compression program for {kind} image format in configuration file isn't available"
        raise _failed(f"{what}; install {name}")
    return Packing(number, (program, "-c", *_EFFORT.get(name, ())))


@contextlib.contextmanager
def packed(file: BinaryIO, way: Packing) -> Iterator[int]:
    """What memory is written to that goes into a file: the file, or a pipe to what packs it.

    The file has all of it when the block is left.

    Raises:
        VirtError: ``OPERATION_FAILED``: the program failed.
        OSError: it cannot be run.
    """
    if not way.command:
        yield file.fileno()
        return
    end, ours = os.pipe()
    with contextlib.ExitStack() as stack:
        ours_closed = stack.enter_context(contextlib.ExitStack())
        ours_closed.callback(os.close, ours)
        with contextlib.closing(os.fdopen(end, "rb")) as pipe:
            tool = subprocess.Popen(way.command, stdin=pipe, stdout=file, stderr=subprocess.PIPE, text=True)
        stack.enter_context(tool)
        stack.callback(tool.kill)
        yield ours
        ours_closed.close()
        try:
            _, said = tool.communicate(timeout=_PACK_SECONDS)
        except subprocess.TimeoutExpired:
            raise _failed(f"{way.command[0]} does not come to its end") from None
        if tool.returncode:
            raise _failed(f"{way.command[0]} failed: {said.strip() or tool.returncode}")


@contextlib.contextmanager
def opened(path: Path, *, is_there: bool = False) -> Iterator[BinaryIO]:
    """Open a file to write a machine's memory to: it is empty, and nobody else writes it.

    Args:
        path: the file.
        is_there: whether it is; else it is made, by us alone.

    Raises:
        VirtError: the host refused, or memory is being written to it; it is as it was then. As the block ends with.
    """
    if is_there:
        refuse_image(path)
    try:
        descriptor = open_named(path, os.O_RDWR | (0 if is_there else os.O_CREAT | os.O_EXCL))
        with open(descriptor, "r+b") as file:
            _take(file, path)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.ftruncate(descriptor, 0)
            yield file
    except OSError as error:
        raise system_fault(error, f"Failed to create file '{path}'", ErrorDomain.QEMU, path=str(path)) from error


def _take(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        what = f"the memory of another machine is being saved to '{path}'; name another file"
        raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU) from None
    except OSError:
        return  # a file system without locks


def refuse_image(path: Path) -> None:
    """Refuse to write memory over an image that somebody has open: the disk would be gone.

    Raises:
        VirtError: ``OPERATION_INVALID``.
    """
    try:
        is_used = permission.is_used(str(path))
    except OSError:
        return  # there is nothing, or who writes says why not
    if is_used:
        holders = ", ".join(find_holders(str(path))) or "another process"
        what = f"'{path}' is the image of a disk, in use by {holders}; name another file"
        raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)


def begin(file: BinaryIO, xml: str, *, running: bool, way: Packing = UNPACKED) -> None:
    """Write what comes before the memory; the file is not whole yet.

    Raises:
        OSError: the host refused.
    """
    text = xml.encode() + b"\0"
    file.write(_HEADER.pack(_PART, _VERSION, len(text) + _ROOM, int(running), way.number, 0))
    file.write(text + bytes(_ROOM))
    file.flush()


def finish(file: BinaryIO) -> None:
    """Say that the file is whole, once all of it is on the disk.

    Raises:
        OSError: the host refused.
    """
    os.fsync(file.fileno())
    os.pwrite(file.fileno(), _WHOLE, 0)
    os.fsync(file.fileno())


def drop_cached(path: Path) -> None:
    """Give back the host's memory that holds a file's bytes: nobody reads them again soon."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_whole(path: Path) -> bool:
    """Whether a file is there that was written to its end."""
    try:
        with open(path, "rb", opener=open_named) as file:
            return file.read(len(_WHOLE)) == _WHOLE
    except OSError:
        return False


def is_kept(path: Path) -> bool:
    """Whether a managed file is there that the next start goes on from: any that is not known to be unfinished.

    What is damaged is not passed over: a guest that began anew on its disks would make its saved memory worthless.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError:
        return False
    return len(head) == _HEADER.size and not head.startswith(_PART)


def read_kept(path: Path, domain: Domain) -> Saved:
    """Read a machine's managed file.

    Raises:
        VirtError: ``OPERATION_FAILED``: as :func:`read`, or it is another machine's.
    """
    try:
        saved = read(path)
        held = document.parse_stored(saved.xml)
    except VirtError as error:
        fix = f"managedsave-remove gives up the saved memory of '{domain.name}'"
        raise VirtError(error.code, f"{error.message}; {fix}", domain=error.domain) from error
    if held.name != domain.name or held.uuid != domain.uuid:
        raise _another(domain, held)
    return saved


def read_of(path: Path, domain: Domain) -> Saved:
    """Read the memory of a machine, which may have had another name then.

    Raises:
        VirtError: ``OPERATION_FAILED``: as :func:`read`, or it is another machine's.
    """
    saved = read(path)
    held = document.parse_stored(saved.xml)
    if held.uuid != domain.uuid:
        raise _another(domain, held)
    return saved


def _another(domain: Domain, held: Domain) -> VirtError:
    whose = f"from a file which belongs to domain '{held.name}' uuid {held.uuid}"
    return _failed(f"cannot restore domain '{domain.name}' uuid {domain.uuid} {whose}")


def discard(path: Path) -> None:
    """Remove a file that was not finished; a device that was written to stays."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            path.unlink()


def aside(path: Path) -> Path:
    """Where a managed file is while its machine goes on from it: not there for another start, and not lost yet."""
    return path.with_suffix(".used")


def remove(path: Path) -> None:
    """Remove a managed file.

    Raises:
        OSError: the host does not let us.
    """
    path.unlink(missing_ok=True)
    aside(path).unlink(missing_ok=True)


def read(path: Path) -> Saved:
    """Read what a file says.

    Raises:
        VirtError: it cannot be read, or is none, or is not whole; ``OPERATION_FAILED`` names what is wrong.
    """
    try:
        with open(path, "rb", opener=open_named) as file:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                raise _failed(f"failed to read qemu header of '{path}'")
            magic, version, length, running, compressed, _ = _HEADER.unpack(head)
            if magic == _PART:
                raise _failed(f"save image '{path}' is incomplete: the save was interrupted; remove it")
            if magic != _WHOLE:
                raise _failed(f"'{path}' is no image of a saved domain")
            if version > _VERSION:
                raise _failed(f"image version of '{path}' is not supported ({version} > {_VERSION})")
            if not 0 < length <= _LARGEST:
                raise _failed(f"invalid XML length in '{path}': {length}")
            if compressed and compressed not in _COMPRESSIONS:
                raise _failed(f"Invalid compressed save format {compressed} of '{path}'")
            held = file.read(length)
    except OSError as error:
        raise system_fault(error, f"Failed to open file '{path}'", ErrorDomain.QEMU) from error
    text, end, _ = held.partition(b"\0")
    if not end:
        raise _failed(f"the document in '{path}' does not end")
    try:
        unpack = (_COMPRESSIONS[compressed], "-dc") if compressed else ()
        return Saved(text.decode(), bool(running), _HEADER.size + length, unpack)
    except UnicodeDecodeError as error:
        raise _failed(f"the document in '{path}' is not UTF-8 at byte {error.start}") from error


def rewrite(path: Path, xml: str, *, running: bool) -> None:
    """Put another document in; all or nothing, since it is one write of a length that does not change.

    Raises:
        VirtError: there is no room for it.
    """
    saved = read(path)
    text = xml.encode() + b"\0"
    length = saved.start - _HEADER.size
    if len(text) > length:
        raise _failed("new xml too large to fit in file")
    kind = next((number for number, name in _COMPRESSIONS.items() if saved.unpack[:1] == (name,)), 0)
    data = _HEADER.pack(_WHOLE, _VERSION, length, int(running), kind, 0) + text.ljust(length, b"\0")
    try:
        with path.open("r+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise system_fault(error, f"cannot write '{path}'", ErrorDomain.QEMU, path=str(path)) from error


def _failed(message: str) -> VirtError:
    return fault(ErrorCode.OPERATION_FAILED, message, ErrorDomain.QEMU)
