"""libsanlock_client: what processes tell the daemon (``sanlock_resource.h``, ``sanlock_admin.h``)."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Sequence
from typing import Any, Final

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

NAME_ROOM: Final = 48  # bytes, with the one that ends it
PATH_ROOM: Final = 1024
HELPER_ROOM: Final = 128
NOT_THERE: Final = (-1, -errno.ENOENT, -errno.ESRCH)  # what is answered of a lease that is let go of, and is not had
_SHARED: Final = 4  # SANLK_RES_SHARED
_RESTRICT_ALL: Final = 1
_WAIT: Final = 1  # SANLK_INQ_WAIT
_OWN_CODES: Final = -200  # below which are codes of sanlock's own; above are those of errno(3)
_SONAME: Final = "libsanlock_client.so.1"


class Disk(ctypes.Structure):
    """``struct sanlk_disk``."""

    _fields_ = (
        ("path", ctypes.c_char * PATH_ROOM),
        ("offset", ctypes.c_uint64),
        ("pad1", ctypes.c_uint32),
        ("pad2", ctypes.c_uint32),
    )


class Resource(ctypes.Structure):
    """``struct sanlk_resource``, on one disk."""

    _fields_ = (
        ("lockspace_name", ctypes.c_char * NAME_ROOM),
        ("name", ctypes.c_char * NAME_ROOM),
        ("lver", ctypes.c_uint64),
        ("data64", ctypes.c_uint64),
        ("data32", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("num_disks", ctypes.c_uint32),
        ("disk", Disk),
    )


class Lockspace(ctypes.Structure):
    """``struct sanlk_lockspace``."""

    _fields_ = (
        ("name", ctypes.c_char * NAME_ROOM),
        ("host_id", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("host_id_disk", Disk),
    )


class _Options(ctypes.Structure):
    """``struct sanlk_options``."""

    _fields_ = (("owner_name", ctypes.c_char * NAME_ROOM), ("flags", ctypes.c_uint32), ("len", ctypes.c_uint32))


class _Host(ctypes.Structure):
    """``struct sanlk_host``."""

    _fields_ = (
        ("host_id", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),
        ("timestamp", ctypes.c_uint64),
        ("io_timeout", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


_RESOURCES: Final = ctypes.POINTER(ctypes.POINTER(Resource))
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "sanlock_register": (),
    "sanlock_restrict": (ctypes.c_int, ctypes.c_uint32),
    "sanlock_killpath": (ctypes.c_int, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_char_p),
    "sanlock_acquire": (
        ctypes.c_int, ctypes.c_int, ctypes.c_uint32, ctypes.c_int, _RESOURCES, ctypes.POINTER(_Options),
    ),
    "sanlock_release": (ctypes.c_int, ctypes.c_int, ctypes.c_uint32, ctypes.c_int, _RESOURCES),
    "sanlock_inquire": (
        ctypes.c_int, ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_void_p),
    ),
    "sanlock_align": (ctypes.POINTER(Disk),),
    "sanlock_write_lockspace": (ctypes.POINTER(Lockspace), ctypes.c_int, ctypes.c_uint32, ctypes.c_uint32),
    "sanlock_write_resource": (ctypes.POINTER(Resource), ctypes.c_int, ctypes.c_int, ctypes.c_uint32),
    "sanlock_add_lockspace_timeout": (ctypes.POINTER(Lockspace), ctypes.c_uint32, ctypes.c_uint32),
    "sanlock_inq_lockspace": (ctypes.POINTER(Lockspace), ctypes.c_uint32),
    "sanlock_read_resource_owners": (
        ctypes.POINTER(Resource), ctypes.c_uint32, ctypes.POINTER(ctypes.POINTER(_Host)), ctypes.POINTER(ctypes.c_int),
    ),
}  # fmt: skip


class SanlockError(Exception):
    """The daemon refuses.

    Attributes:
        code: as it said it: of errno(3), or of its own below -200.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    @property
    def is_its_own(self) -> bool:
        """Whether the reason is one that only sanlock has."""
        return self.code <= _OWN_CODES

    def __str__(self) -> str:
        if self.is_its_own:
            text = _library().sanlock_strerror(self.code)
            return text.decode(errors="replace") if text else f"sanlock error {self.code}"
        return os.strerror(-self.code)


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_SONAME, use_errno=True)
    except OSError:
        what = f'lock_manager = "sanlock" needs {_SONAME}; install the packages libsanlock-client1 and sanlock'
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.LOCKING) from None
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_int, arguments
    library.sanlock_strerror.restype, library.sanlock_strerror.argtypes = ctypes.c_char_p, (ctypes.c_int,)
    return library


def _called(name: str, *arguments: Any) -> int:
    """Call; what was answered.

    Raises:
        SanlockError: it was a refusal.
        VirtError: the library is not there.
    """
    answer = int(getattr(_library(), name)(*arguments))
    if answer < 0:
        raise SanlockError(answer)
    return answer


def resource(space: str, name: str, path: str, offset: int, *, shared: bool) -> Resource:
    """A lease as sanlock has it; what is too long for it is refused before."""
    disk = Disk(path=os.fsencode(path), offset=offset)
    flags = _SHARED if shared else 0
    return Resource(lockspace_name=space.encode(), name=name.encode(), flags=flags, num_disks=1, disk=disk)


def lockspace(name: str, host_id: int, path: str) -> Lockspace:
    """A lockspace, in which this host has a number."""
    return Lockspace(name=name.encode(), host_id=host_id, host_id_disk=Disk(path=os.fsencode(path)))


def _array(resources: Sequence[Resource]) -> Any:
    return (ctypes.POINTER(Resource) * len(resources))(*(ctypes.pointer(item) for item in resources))


def register() -> int:
    """Connect as this process; the connection.

    Raises:
        SanlockError: no daemon answers.
    """
    return _called("sanlock_register")


def restrict(connection: int) -> None:
    """Let a connection do nothing more.

    Raises:
        SanlockError: refused; likewise below.
    """
    _called("sanlock_restrict", connection, _RESTRICT_ALL)


def set_helper(connection: int, path: str) -> None:
    """Name the program that is run when the locks of a connection's process are lost."""
    _called("sanlock_killpath", connection, 0, os.fsencode(path), b"")


def acquire(pid: int, name: str, resources: Sequence[Resource]) -> None:
    """Get leases for a process that is registered: all, or none."""
    options = _Options(owner_name=name.encode()[: NAME_ROOM - 1])
    _called("sanlock_acquire", -1, pid, 0, len(resources), _array(resources), ctypes.byref(options))


def release(pid: int, resources: Sequence[Resource]) -> None:
    """Let go of leases."""
    _called("sanlock_release", -1, pid, 0, len(resources), _array(resources))


def inquire(pid: int) -> str:
    """Which leases a process has, with their versions, as one text."""
    count, text = ctypes.c_int(), ctypes.c_void_p()
    _called("sanlock_inquire", -1, pid, 0, ctypes.byref(count), ctypes.byref(text))
    return _taken(text)


def align(path: str) -> int:
    """How many bytes a lease takes on the storage of a file."""
    return _called("sanlock_align", ctypes.byref(Disk(path=os.fsencode(path))))


def write_lockspace(space: Lockspace, io_timeout: int) -> None:
    """Make a file a lockspace."""
    _called("sanlock_write_lockspace", ctypes.byref(space), 0, 0, io_timeout)


def write_resource(item: Resource) -> None:
    """Make a file a lease."""
    _called("sanlock_write_resource", ctypes.byref(item), 0, 0, 0)


def add_lockspace(space: Lockspace, io_timeout: int) -> None:
    """Have this host take part in a lockspace, which takes several times ``io_timeout`` seconds."""
    _called("sanlock_add_lockspace_timeout", ctypes.byref(space), 0, io_timeout)


def wait_for_lockspace(space: Lockspace) -> None:
    """Wait until somebody's adding of a lockspace is over."""
    _called("sanlock_inq_lockspace", ctypes.byref(space), _WAIT)


def owners(item: Resource) -> list[int]:
    """The numbers of the hosts that have a lease; none where that cannot be read."""
    hosts, count = ctypes.POINTER(_Host)(), ctypes.c_int()
    try:
        _called("sanlock_read_resource_owners", ctypes.byref(item), 0, ctypes.byref(hosts), ctypes.byref(count))
    except (SanlockError, VirtError):
        return []
    found = [int(hosts[number].host_id) for number in range(count.value)]
    _free(ctypes.cast(hosts, ctypes.c_void_p))
    return found


def _taken(text: ctypes.c_void_p) -> str:
    """A text that the library has made, which is ours to free."""
    if not text.value:
        return ""
    found = ctypes.string_at(text.value).decode(errors="surrogateescape")
    _free(text)
    return found


def _free(pointer: ctypes.c_void_p) -> None:
    free = ctypes.CDLL(None).free
    free.restype, free.argtypes = None, (ctypes.c_void_p,)
    free(pointer)
