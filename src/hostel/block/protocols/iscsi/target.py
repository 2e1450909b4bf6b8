"""A target as a whole: which units it has, and which targets a server offers."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from hostel.block.protocols import shared_library
from hostel.block.protocols.iscsi.library import SONAMES, Task, end_session, said
from hostel.errors import BlockError

_TIMEOUT: Final = 30  # seconds for one command
_DISCOVERY: Final = 1
_NORMAL: Final = 2
_GOOD: Final = 0x00
_CHECK_CONDITION: Final = 0x02
_UNIT_ATTENTION: Final = 0x06
_RETRIES: Final = 10  # of a question that a unit answers with news of itself
_DISK: Final = 0
_HEAD: Final = 8  # bytes before the list of units
_MOST: Final = 8 * 16384 + _HEAD  # bytes of an answer: more units than SCSI can tell apart
_pointer = ctypes.c_void_p
_int = ctypes.c_int


class _Address(ctypes.Structure):
    """``struct iscsi_discovery_address``, as far as the target's name."""


_Address._fields_ = [("next", ctypes.POINTER(_Address)), ("target_name", ctypes.c_char_p)]
_task = ctypes.POINTER(Task)
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    # name: result, arguments
    "iscsi_create_context": (_pointer, ctypes.c_char_p),
    "iscsi_destroy_context": (_int, _pointer),
    "iscsi_get_error": (ctypes.c_char_p, _pointer),
    "iscsi_set_targetname": (_int, _pointer, ctypes.c_char_p),
    "iscsi_set_session_type": (_int, _pointer, _int),
    "iscsi_set_initiator_username_pwd": (_int, _pointer, ctypes.c_char_p, ctypes.c_char_p),
    "iscsi_set_timeout": (_int, _pointer, _int),
    "iscsi_set_noautoreconnect": (None, _pointer, _int),
    "iscsi_connect_sync": (_int, _pointer, ctypes.c_char_p),
    "iscsi_login_sync": (_int, _pointer),
    "iscsi_logout_sync": (_int, _pointer),
    "iscsi_is_logged_in": (_int, _pointer),
    "iscsi_discovery_sync": (ctypes.POINTER(_Address), _pointer),
    "iscsi_free_discovery_data": (None, _pointer, ctypes.POINTER(_Address)),
    "iscsi_testunitready_sync": (_task, _pointer, _int),
    "iscsi_reportluns_sync": (_task, _pointer, _int, _int),
    "iscsi_inquiry_sync": (_task, _pointer, _int, _int, _int, _int),
    "iscsi_readcapacity16_sync": (_task, _pointer, _int),
    "scsi_free_scsi_task": (None, _task),
}


@functools.cache
def _library() -> ctypes.CDLL:
    return shared_library.load("iscsi", SONAMES, _SIGNATURES, "Install the package libiscsi7.")


class Who(NamedTuple):
    """As whom to log in.

    Attributes:
        portal: the server, ``HOST:PORT``.
        initiator: our name, an IQN.
    """

    portal: str
    initiator: str
    user: str | None = None
    password: bytes = b""


class Target:
    """A target that we are logged in to, or a server that is asked for its targets.

    Args:
        who: as whom, and where.
        name: the target's; None to ask the server.

    Raises:
        BlockError: the server does not answer, or lets us not in.
    """

    def __init__(self, who: Who, name: str | None) -> None:
        self._iscsi = _library()
        self._context = self._iscsi.iscsi_create_context(who.initiator.encode())
        if not self._context:
            raise BlockError(f"Failed to create iscsi context for {who.initiator}", errno=errno.ENOMEM)
        try:
            self._connect(who, name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _connect(self, who: Who, name: str | None) -> None:
        iscsi, context = self._iscsi, self._context
        if who.user is not None:
            iscsi.iscsi_set_initiator_username_pwd(context, who.user.encode(), who.password)
        if name is not None and iscsi.iscsi_set_targetname(context, name.encode()):
            raise self._failure("Failed to set target name")
        iscsi.iscsi_set_session_type(context, _DISCOVERY if name is None else _NORMAL)
        iscsi.iscsi_set_timeout(context, _TIMEOUT)
        iscsi.iscsi_set_noautoreconnect(context, 1)
        if iscsi.iscsi_connect_sync(context, who.portal.encode()):
            raise self._failure("Failed to connect")
        if iscsi.iscsi_login_sync(context):
            raise self._failure("Failed to login")

    def names(self) -> list[str]:
        """The targets that the server offers."""
        first = self._iscsi.iscsi_discovery_sync(self._context)
        if not first:
            raise self._failure("Failed to discover session")
        found = []
        address = first
        while address:
            found.append((address.contents.target_name or b"").decode(errors="replace"))
            address = address.contents.next
        self._iscsi.iscsi_free_discovery_data(self._context, first)
        return found

    def units(self) -> list[int]:
        """The numbers of the target's units."""
        size = _HEAD
        for _ in range(2):
            with self._run("reportluns", self._iscsi.iscsi_reportluns_sync, 0, max(size, 16)) as data:
                if len(data) < _HEAD:
                    raise BlockError("iSCSI: Failed to unmarshall reportluns", errno=errno.EIO)
                wanted = min(struct.unpack_from(">I", data)[0] + _HEAD, _MOST)
                if wanted <= len(data):
                    rows = range(_HEAD, wanted - 7, 8)
                    # A number takes 14 bits; the two above them say how it is written.
                    return [struct.unpack_from(">H", data, row)[0] & 0x3FFF for row in rows]
                size = wanted
        raise BlockError("iSCSI: the list of units is cut off", errno=errno.EIO)

    def capacity(self, unit: int) -> int:
        """Bytes of a unit; 0 where it is no disk."""
        self._wait(unit)
        with self._run("inquiry", self._iscsi.iscsi_inquiry_sync, unit, 0, 0, 64) as data:
            if not data:
                raise BlockError("iSCSI: Failed to unmarshall inquiry", errno=errno.EIO)
            if data[0] & 0x1F != _DISK:
                return 0
        with self._run("get capacity of lun", self._iscsi.iscsi_readcapacity16_sync, unit) as data:
            if len(data) < 12:
                raise BlockError("iSCSI: Failed to unmarshall capacity", errno=errno.EIO)
            last, block = struct.unpack_from(">QI", data)
            return int(last + 1) * int(block)

    def _wait(self, unit: int) -> None:
        """Hear what a unit has to tell of itself first, such as that its bus was reset."""
        for _ in range(_RETRIES):
            task = self._iscsi.iscsi_testunitready_sync(self._context, unit)
            if not task:
                raise self._failure("Failed testunitready")
            status, key = task.contents.status, task.contents.sense.key
            self._iscsi.scsi_free_scsi_task(task)
            if status == _GOOD:
                return
            if status != _CHECK_CONDITION or key != _UNIT_ATTENTION:
                break
        raise self._failure("Failed testunitready")

    @contextlib.contextmanager
    def _run(self, what: str, call: Any, *words: int) -> Iterator[bytes]:
        task = call(self._context, *words)
        if not task:
            raise self._failure(f"Failed to {what}")
        try:
            if task.contents.status != _GOOD:
                raise self._failure(f"Failed to {what}")
            data = task.contents.datain
            yield ctypes.string_at(data.data, data.size) if data.data and data.size > 0 else b""
        finally:
            self._iscsi.scsi_free_scsi_task(task)

    def _failure(self, what: str) -> BlockError:
        return BlockError(f"{what}: {said(self._iscsi, self._context)}", errno=errno.EIO)

    def close(self) -> None:
        """Log out."""
        if self._context:
            end_session(self._iscsi, self._context)
            self._context = None
