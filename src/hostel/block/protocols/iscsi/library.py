"""libiscsi, as far as a disk needs it: one logical unit of one target."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from hostel.block.protocols import shared_library
from hostel.errors import BlockError, NoSpace, ReadOnly

SONAMES: Final = ("libiscsi.so.9", "libiscsi.so.8", "libiscsi.so.7")
_TIMEOUT: Final = 60  # seconds for one command, where the user says nothing
_RECONNECTIONS: Final = 3
_RETRIES: Final = 5  # of a command that the target was too busy for, or that told of something else
_SESSION_NORMAL: Final = 2
_DIGESTS: Final = {"none": 0, "none-crc32c": 1, "crc32c-none": 2, "crc32c": 3}
# Status codes and sense keys of SCSI (SAM, SPC).
_GOOD: Final = 0x00
_CHECK_CONDITION: Final = 0x02
_TRY_AGAIN: Final = frozenset({0x08, 0x28, 0x0F000000})  # busy, task set full, and libiscsi's timeout
_UNIT_ATTENTION: Final = 0x06
_DATA_PROTECT: Final = 0x07
_ILLEGAL_REQUEST: Final = 0x05
_SPACE_ALLOCATION_FAILED: Final = 0x2707
_ZEROED_AT_ONCE: Final = 64 << 20  # bytes that a command zeroes: it has a minute
_PROVISIONING_PAGE: Final = 0xB2
_LIMITS_PAGE: Final = 0xB0
_MODE_ALL_PAGES: Final = 0x3F
_pointer = ctypes.c_void_p
_int = ctypes.c_int


class _Sense(ctypes.Structure):
    """``struct scsi_sense``, as far as its code."""

    _fields_ = (
        ("error_type", ctypes.c_ubyte),
        ("key", _int),
        ("ascq", _int),
        ("bits", ctypes.c_uint16),
        ("field_pointer", ctypes.c_uint16),
    )


class _Data(ctypes.Structure):
    """``struct scsi_data``."""

    _fields_ = (("size", _int), ("data", _pointer))


class Task(ctypes.Structure):
    """``struct scsi_task``, as far as what came in."""

    _fields_ = (
        ("status", _int),
        ("cdb_size", _int),
        ("xfer_dir", _int),
        ("expxferlen", _int),
        ("cdb", ctypes.c_ubyte * 16),
        ("residual_status", _int),
        ("residual", ctypes.c_size_t),
        ("sense", _Sense),
        ("datain", _Data),
    )


class _Unmap(ctypes.Structure):
    """``struct unmap_list``."""

    _fields_ = (("lba", ctypes.c_uint64), ("num", ctypes.c_uint32))


_task = ctypes.POINTER(Task)
_FLAGS: Final = (_int,) * 5
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    # name: result, arguments
    "iscsi_create_context": (_pointer, ctypes.c_char_p),
    "iscsi_destroy_context": (_int, _pointer),
    "iscsi_get_error": (ctypes.c_char_p, _pointer),
    "iscsi_set_targetname": (_int, _pointer, ctypes.c_char_p),
    "iscsi_set_session_type": (_int, _pointer, _int),
    "iscsi_set_header_digest": (_int, _pointer, _int),
    "iscsi_set_initiator_username_pwd": (_int, _pointer, ctypes.c_char_p, ctypes.c_char_p),
    "iscsi_set_timeout": (_int, _pointer, _int),
    "iscsi_set_reconnect_max_retries": (None, _pointer, _int),
    "iscsi_full_connect_sync": (_int, _pointer, ctypes.c_char_p, _int),
    "iscsi_is_logged_in": (_int, _pointer),
    "iscsi_logout_sync": (_int, _pointer),
    "scsi_free_scsi_task": (None, _task),
    "iscsi_inquiry_sync": (_task, _pointer, _int, _int, _int, _int),
    "iscsi_modesense6_sync": (_task, _pointer, _int, _int, _int, _int, _int, ctypes.c_ubyte),
    "iscsi_readcapacity16_sync": (_task, _pointer, _int),
    "iscsi_readcapacity10_sync": (_task, _pointer, _int, _int, _int),
    "iscsi_read16_sync": (_task, _pointer, _int, ctypes.c_uint64, ctypes.c_uint32, _int, *_FLAGS),
    "iscsi_write16_sync": (_task, _pointer, _int, ctypes.c_uint64, _pointer, ctypes.c_uint32, _int, *_FLAGS),
    "iscsi_read10_sync": (_task, _pointer, _int, ctypes.c_uint32, ctypes.c_uint32, _int, *_FLAGS),
    "iscsi_write10_sync": (_task, _pointer, _int, ctypes.c_uint32, _pointer, ctypes.c_uint32, _int, *_FLAGS),
    "iscsi_synchronizecache10_sync": (_task, _pointer, _int, _int, _int, _int, _int),
    "iscsi_get_lba_status_sync": (_task, _pointer, _int, ctypes.c_uint64, ctypes.c_uint32),
    "iscsi_unmap_sync": (_task, _pointer, _int, _int, _int, ctypes.POINTER(_Unmap), _int),
    "iscsi_writesame16_sync": (
        *(_task, _pointer, _int, ctypes.c_uint64, _pointer, ctypes.c_uint32, ctypes.c_uint32),
        *(_int, _int, _int, _int),
    ),
}


@functools.cache
def _library() -> ctypes.CDLL:
    return shared_library.load("iscsi", SONAMES, _SIGNATURES, "Install the package libiscsi7.")


def said(iscsi: ctypes.CDLL, context: Any) -> str:
    """What libiscsi says of the last failure of a session."""
    found: bytes | None = iscsi.iscsi_get_error(context)
    return (found or b"unknown error").decode(errors="replace").strip()


def end_session(iscsi: ctypes.CDLL, context: Any) -> None:
    """Log out, and free what a session has; ``context`` is none any more."""
    if iscsi.iscsi_is_logged_in(context):
        iscsi.iscsi_logout_sync(context)
    iscsi.iscsi_destroy_context(context)


class Login(NamedTuple):
    """Which unit is reached, and how.

    Attributes:
        portal: ``HOST[:PORT]``.
        target: the target's name, an IQN.
        digest: a key of libiscsi's header digests.
        timeout: seconds for a command; 0 for the usual time.
    """

    portal: str
    target: str
    lun: int
    initiator: str
    digest: str = "none-crc32c"
    timeout: int = 0
    user: str | None = None
    password: bytes = b""


class Unit:
    """A logical unit. One thread at a time.

    Attributes:
        block_size: bytes.
        blocks: how many it has.
        is_protected: it cannot be written.
        thin: space can be given back, and what was given back reads as zeroes.
        unmaps: it takes UNMAP.
        zeroes_thin: zeroing may give space back.
    """

    def __init__(self, login: Login) -> None:
        self._iscsi = _library()
        self._lun = login.lun
        self._context = self._iscsi.iscsi_create_context(login.initiator.encode())
        if not self._context:
            raise BlockError("iSCSI: Failed to create iSCSI context.", errno=errno.ENOMEM)
        try:
            self._connect(login)
            self._learn()
        except BaseException:
            self.close()
            raise

    def _connect(self, login: Login) -> None:
        iscsi, context = self._iscsi, self._context
        if iscsi.iscsi_set_targetname(context, login.target.encode()):
            raise BlockError("iSCSI: Failed to set target name.", errno=errno.EINVAL)
        if login.user is not None:
            iscsi.iscsi_set_initiator_username_pwd(context, login.user.encode(), login.password)
        iscsi.iscsi_set_session_type(context, _SESSION_NORMAL)
        if login.digest not in _DIGESTS:
            raise BlockError(f"Invalid header-digest setting : {login.digest}", errno=errno.EINVAL)
        iscsi.iscsi_set_header_digest(context, _DIGESTS[login.digest])
        iscsi.iscsi_set_timeout(context, login.timeout or _TIMEOUT)
        iscsi.iscsi_set_reconnect_max_retries(context, _RECONNECTIONS)
        if iscsi.iscsi_full_connect_sync(context, login.portal.encode(), login.lun):
            raise BlockError(f"iSCSI: Failed to connect to LUN : {said(iscsi, context)}", errno=errno.EINVAL)

    def _learn(self) -> None:
        iscsi, context, lun = self._iscsi, self._context, self._lun
        with self._run("READ CAPACITY", iscsi.iscsi_readcapacity16_sync, context, lun) as data:
            if len(data) < 16:
                raise BlockError("iSCSI: Failed to unmarshall readcapacity16 data.", errno=errno.EINVAL)
            last, self.block_size, flags = struct.unpack_from(">QI2xH", data)
            self.blocks = last + 1
        if self.block_size < 512 or self.block_size & (self.block_size - 1) or self.blocks * self.block_size >= 2**63:
            raise BlockError(f"iSCSI: {self.blocks} blocks of {self.block_size} bytes are no disk", errno=errno.EINVAL)
        zeroes = bool(flags & 0x4000)
        manages = bool(flags & 0x8000)
        self.is_protected = self._is_protected()
        provisioning = self._page(_PROVISIONING_PAGE) if manages else b""
        self.unmaps = len(provisioning) > 5 and bool(provisioning[5] & 0x80)
        self.thin = manages and zeroes
        self.zeroes_thin = self.thin and len(provisioning) > 5 and bool(provisioning[5] & 0x40)
        limits = self._page(_LIMITS_PAGE)
        self.max_unmap, self.unmap_granule = struct.unpack_from(">I4xI", limits, 20) if len(limits) >= 32 else (0, 0)
        self.max_zeroes = struct.unpack_from(">Q", limits, 36)[0] if len(limits) >= 44 else 0

    def _is_protected(self) -> bool:
        with contextlib.suppress(BlockError):
            call = self._iscsi.iscsi_modesense6_sync
            with self._run("MODE SENSE", call, self._context, self._lun, 1, 0, _MODE_ALL_PAGES, 0, 255) as data:
                return len(data) > 2 and bool(data[2] & 0x80)
        return False

    def _page(self, number: int) -> bytes:
        """A page of vital product data; empty where the unit has none of this number."""
        with contextlib.suppress(BlockError):
            call = self._iscsi.iscsi_inquiry_sync
            with self._run("INQUIRY", call, self._context, self._lun, 1, number, 255) as data:
                return data if len(data) > 1 and data[1] == number else b""
        return b""

    def read(self, block: int, buf: memoryview) -> None:
        """Read whole blocks."""
        wide = block + len(buf) // self.block_size > 0xFFFFFFFF
        call = self._iscsi.iscsi_read16_sync if wide else self._iscsi.iscsi_read10_sync
        words = (self._context, self._lun, block, len(buf), self.block_size, 0, 0, 0, 0, 0)
        with self._run("READ", call, *words) as data:
            if len(data) != len(buf):
                raise BlockError("iSCSI READ failed: the target sends less than it was asked for", errno=errno.EIO)
            buf[:] = data

    def write(self, block: int, data: memoryview) -> None:
        """Write whole blocks."""
        wide = block + len(data) // self.block_size > 0xFFFFFFFF
        call = self._iscsi.iscsi_write16_sync if wide else self._iscsi.iscsi_write10_sync
        holder = ctypes.create_string_buffer(bytes(data), len(data))
        words = (self._context, self._lun, block, holder, len(data), self.block_size, 0, 0, 0, 0, 0)
        with self._run("WRITE", call, *words):
            pass

    def sync(self) -> None:
        """Have the target store what was written."""
        call = self._iscsi.iscsi_synchronizecache10_sync
        with self._run("SYNCHRONIZE CACHE", call, self._context, self._lun, 0, 0, 0, 0):
            pass

    def unmap(self, block: int, count: int) -> None:
        """Give blocks back."""
        step = min(self.max_unmap or 0xFFFFFFFF, 0xFFFFFFFF)
        while count:
            part = min(count, step)
            ranges = (_Unmap * 1)(_Unmap(block, part))
            with self._run("UNMAP", self._iscsi.iscsi_unmap_sync, self._context, self._lun, 0, 0, ranges, 1):
                pass
            block, count = block + part, count - part

    def zero(self, block: int, count: int, *, unmap: bool) -> None:
        """Make blocks zeroes (WRITE SAME); with ``unmap``, where that may give space back, it does if the target likes.

        Raises:
            BlockError: it failed; EINVAL where the target has no such command, or not for as many blocks.
        """
        step = min(self.max_zeroes or _ZEROED_AT_ONCE, max(1, _ZEROED_AT_ONCE // self.block_size))
        zeroes = ctypes.create_string_buffer(self.block_size)
        while count:
            part = min(count, step)
            words = (block, zeroes, self.block_size, part, 0, int(unmap and self.zeroes_thin), 0, 0)
            with self._run("WRITE SAME", self._iscsi.iscsi_writesame16_sync, self._context, self._lun, *words):
                pass
            block, count = block + part, count - part

    def provisioned(self, block: int) -> tuple[int, bool]:
        """From a block on: for how many blocks, and whether they have space of their own.

        Raises:
            BlockError: the target does not tell.
        """
        call = self._iscsi.iscsi_get_lba_status_sync
        with self._run("GET LBA STATUS", call, self._context, self._lun, block, 8 + 16) as data:
            if len(data) < 24:
                raise BlockError("iSCSI GET_LBA_STATUS failed: no answer", errno=errno.EIO)
            first, count, status = struct.unpack_from(">QIB", data, 8)
            if first != block or not count:
                raise BlockError("iSCSI GET_LBA_STATUS failed: another range is told", errno=errno.EIO)
            return count, status & 0xF == 0

    @contextlib.contextmanager
    def _run(self, what: str, call: Any, *words: Any) -> Iterator[bytes]:
        """Run a command; gives what came in."""
        task = self._complete(what, call, words)
        try:
            data = task.contents.datain
            yield ctypes.string_at(data.data, data.size) if data.data and data.size > 0 else b""
        finally:
            self._iscsi.scsi_free_scsi_task(task)

    def _complete(self, what: str, call: Any, words: tuple[Any, ...]) -> Any:
        for attempt in range(_RETRIES + 1):
            task = call(*words)
            if not task:
                raise BlockError(f"iSCSI {what} failed: {said(self._iscsi, self._context)}", errno=errno.EIO)
            status, sense = task.contents.status, task.contents.sense
            if status == _GOOD:
                return task
            key, code = sense.key, sense.ascq
            self._iscsi.scsi_free_scsi_task(task)
            again = status in _TRY_AGAIN or (status == _CHECK_CONDITION and key == _UNIT_ATTENTION)
            if not again or attempt == _RETRIES:
                raise self._failure(what, status, key, code)
        raise AssertionError("the last attempt returns or raises")

    def _failure(self, what: str, status: int, key: int, code: int) -> BlockError:
        text = f"iSCSI {what} failed: {said(self._iscsi, self._context)}"
        if status == _CHECK_CONDITION and key == _DATA_PROTECT:
            return NoSpace(text) if code == _SPACE_ALLOCATION_FAILED else ReadOnly(text)
        refused = status == _CHECK_CONDITION and key == _ILLEGAL_REQUEST
        return BlockError(text, errno=errno.EINVAL if refused else errno.EIO)

    def close(self) -> None:
        """Log out."""
        if self._context:
            end_session(self._iscsi, self._context)
            self._context = None
