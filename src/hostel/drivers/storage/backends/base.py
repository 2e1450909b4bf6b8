"""What a pool type does itself; the driver does what is the same for all of them.

To add a type: a module here with a subclass of :class:`Backend`, and its row in :data:`BACKENDS`. What a type does not
have is refused here, in libvirt's words: the table of its operations is which methods it has.
"""

from __future__ import annotations

import enum
import functools
import importlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from hostel.drivers.base import Hole, Progress, VolumeCreateFlag, VolumeResizeFlag, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage.document import PoolDefinition, PoolSizes, VolumeDefinition, VolumeFacts
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.authentication import SecretReference
from hostel.model.pool_sources import PoolSources
from hostel.model.storage import PoolSource, PoolType


class Overwrite(enum.Enum):
    """Whether a device on which something is may be formatted."""

    DEFAULT = enum.auto()
    NEVER = enum.auto()
    ALWAYS = enum.auto()

    @classmethod
    def of(cls, value: bool | None) -> Overwrite:
        """What a caller asked for; None: nothing."""
        return cls.DEFAULT if value is None else cls.ALWAYS if value else cls.NEVER


class Source(NamedTuple):
    """What a clone is made of.

    Attributes:
        directories: the real paths of the active pools, in which a backing chain may lie.
        pool: which it is in.
    """

    facts: VolumeFacts
    directories: Collection[str]
    pool: PoolDefinition | None = None


class Listed(NamedTuple):
    """A volume in a pool's list."""

    name: str
    key: str
    path: str


def no_secret(secret: SecretReference, _usage: str) -> bytes:
    """The lookup of a session that keeps no secrets.

    Raises:
        VirtError: ``NO_SECRET``.
    """
    how = f"uuid '{secret.uuid}'" if secret.uuid else f"usage '{secret.usage}'"
    raise fault(ErrorCode.NO_SECRET, f"no secret with matching {how}", ErrorDomain.SECRET)


class Host(NamedTuple):
    """What pools find on their host.

    Attributes:
        sysfs: where the kernel tells of devices.
        dev: where devices are.
        secret: the value of a secret for a use (``ceph``, ``iscsi``).
    """

    sysfs: str = "/sys"
    dev: str = "/dev"
    secret: Callable[[SecretReference, str], bytes] = no_secret


class Backend:
    """A pool type. Sizes are bytes; errors are VirtError.

    Attributes:
        has_files: whether its volumes are files of a directory, in which a backing chain may lie.
    """

    has_files = False

    def __init__(self, host: Host) -> None:
        self.host = host

    def check(self, pool: PoolDefinition) -> None:
        """Refuse a definition that cannot work."""

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether a pool that was started is still there; asked often."""
        return True

    def build(self, pool: PoolDefinition, overwrite: Overwrite) -> None:
        """Make what the pool stands on."""

    def delete(self, pool: PoolDefinition) -> None:
        """Remove what :meth:`build` made."""
        raise unsupported("pool does not support pool deletion")

    def start(self, pool: PoolDefinition) -> None:
        """Make its volumes reachable."""

    def stop(self, pool: PoolDefinition) -> None:
        """Undo :meth:`start`."""

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Look again; the definition with what was found out."""
        return pool

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """A started pool as it is now, and its capacity, allocation and free space."""
        raise AssertionError("every type of pools has sizes")

    def listing(self, pool: PoolDefinition) -> Iterator[Listed]:
        """Every volume, without opening it where that can be."""
        for facts in self.describe_all(pool):
            yield Listed(facts.name, facts.unique, facts.path)

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """The facts of every volume."""
        raise AssertionError("every type of pools has volumes")

    def volume(self, pool: PoolDefinition, name: str) -> VolumeFacts | None:
        """The facts of a volume; None when there is none of this name."""
        return next((facts for facts in self.describe_all(pool) if facts.name == name), None)

    def lookup(self, pool: PoolDefinition, name: str) -> Listed | None:
        """The volume of a name; None where there is none."""
        return next((one for one in self.listing(pool) if one.name == name), None)

    def find(self, pool: PoolDefinition, word: str, *, by_key: bool) -> Listed | None:
        """The volume of a key, or of a path."""
        if word.startswith("/") and not word.startswith(pool.path or "//"):
            return None  # nothing of another place is in it: no need to ask a server
        return next((one for one in self.listing(pool) if word == (one.key if by_key else one.path)), None)

    def create(self, pool: PoolDefinition, volume: VolumeDefinition, flags: VolumeCreateFlag) -> None:
        """Create an empty volume, whole or not at all."""
        raise unsupported("storage pool does not support volume creation")

    def create_from(
        self,
        pool: PoolDefinition,
        volume: VolumeDefinition,
        source: Source,
        flags: VolumeCreateFlag,
        progress: Progress | None,
    ) -> None:
        """Create a volume with another's content, whole or not at all."""
        raise unsupported("storage pool does not support volume creation from an existing volume")

    def remove(self, pool: PoolDefinition, volume: VolumeFacts, *, snapshots: bool) -> None:
        """Remove a volume."""
        raise unsupported("storage pool does not support vol deletion")

    def resize(
        self,
        pool: PoolDefinition,
        volume: VolumeFacts,
        capacity: int,
        flags: VolumeResizeFlag,
        directories: Collection[str],
    ) -> None:
        """Change a volume's capacity; the driver has checked libvirt's rules."""
        raise unsupported("storage pool does not support changing of volume capacity")

    def wipe(
        self, pool: PoolDefinition, volume: VolumeFacts, algorithm: WipeAlgorithm, progress: Progress | None
    ) -> None:
        """Overwrite a volume's bytes, so that they cannot be read back."""
        raise unsupported("storage pool doesn't support volume wiping")

    def download(
        self, pool: PoolDefinition, volume: VolumeFacts, offset: int, length: int, *, sparse: bool
    ) -> Iterator[memoryview | Hole]:
        """A volume's bytes; ``length`` 0 is to the end, and holes are told with ``sparse``."""
        raise unsupported("storage pool doesn't support volume download")

    def upload(
        self,
        pool: PoolDefinition,
        volume: VolumeFacts,
        source: Iterable[bytes | memoryview | Hole],
        offset: int,
        length: int,
        *,
        trusted: bool,
    ) -> None:
        """Overwrite a volume's bytes; ``length`` 0 is no bound. What names other files is not followed later."""
        raise unsupported("storage pool doesn't support volume upload")

    def find_sources(self, source: PoolSource | None) -> PoolSources | None:
        """The storage that a host has for such pools; None where it cannot be asked."""
        return None


_HERE: Final = "hostel.drivers.storage.backends"
BACKENDS: Final[dict[str, str]] = {
    "dir": f"{_HERE}.dir:DirBackend",
    "fs": f"{_HERE}.mounted:FileSystemBackend",
    "netfs": f"{_HERE}.mounted:NetworkFileSystemBackend",
    "logical": f"{_HERE}.logical:LogicalBackend",
    "disk": f"{_HERE}.disk:DiskBackend",
    "iscsi": f"{_HERE}.iscsi:IscsiBackend",
    "iscsi-direct": f"{_HERE}.iscsi_direct:IscsiDirectBackend",
    "scsi": f"{_HERE}.scsi:ScsiBackend",
    "mpath": f"{_HERE}.mpath:MultipathBackend",
    "rbd": f"{_HERE}.rbd:RbdBackend",
    "gluster": f"{_HERE}.gluster:GlusterBackend",
    "zfs": f"{_HERE}.zfs:ZfsBackend",
    "vstorage": f"{_HERE}.mounted:VirtuozzoBackend",
}


def backend_for(type: str, host: Host) -> Backend:
    """The backend of a pool type.

    Raises:
        VirtError: ``INTERNAL_ERROR``; there is none, as in libvirt.
    """
    if type not in BACKENDS:
        number = list(PoolType).index(PoolType(type))
        raise fault(
            ErrorCode.INTERNAL_ERROR,
            f"missing backend for pool type {number} ({type}): supported are {', '.join(BACKENDS)}",
            ErrorDomain.STORAGE,
        )
    return _class_of(type)(host)


@functools.cache
def _class_of(kind: str) -> type[Backend]:
    module, _, name = BACKENDS[kind].partition(":")
    found: type[Backend] = getattr(importlib.import_module(module), name)
    return found


def unsupported(detail: str) -> VirtError:
    """What a type of pools does not have."""
    return fault(ErrorCode.NO_SUPPORT, detail, ErrorDomain.STORAGE)


def refuse_snapshots(pool: PoolDefinition, snapshots: bool) -> None:
    """Refuse to delete a volume's snapshots where the pool keeps none beside it.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if snapshots:
        detail = f"pool '{pool.name}' of type '{pool.type}' keeps no snapshots beside its volumes"
        raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)


def unsupported_flags(pool: PoolDefinition, overwrite: Overwrite) -> None:
    """Refuse to be told what to overwrite where the type's tool decides that itself.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if overwrite is not Overwrite.DEFAULT:
        detail = f"pool '{pool.name}' of type '{pool.type}' is built without --overwrite and --no-overwrite"
        raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)
