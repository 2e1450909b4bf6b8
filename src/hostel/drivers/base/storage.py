"""Pools and volumes: references, states and calls."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol


class PoolRef(NamedTuple):
    """Names a storage pool."""

    name: str
    uuid: str


class VolumeRef(NamedTuple):
    """Names a volume: its pool, its name in the pool, and its key (for files the path)."""

    pool: str
    name: str
    key: str


class PoolState(enum.IntEnum):
    """``virStoragePoolState``."""

    INACTIVE = 0
    BUILDING = 1
    RUNNING = 2
    DEGRADED = 3
    INACCESSIBLE = 4


class PoolInfo(NamedTuple):
    """``virStoragePoolInfo``: sizes in bytes."""

    state: PoolState
    capacity: int
    allocation: int
    available: int


class VolumeType(enum.IntEnum):
    """``virStorageVolType``."""

    FILE = 0
    BLOCK = 1
    DIR = 2
    NETWORK = 3
    NETDIR = 4
    PLOOP = 5


class VolumeInfo(NamedTuple):
    """``virStorageVolInfo``: sizes in bytes; where the physical size was asked for, ``allocation`` is that."""

    type: VolumeType
    capacity: int
    allocation: int


class VolumeRow(NamedTuple):
    """A volume in a list of a pool's; ``info`` None where it was not asked for, or where it went away meanwhile."""

    volume: VolumeRef
    path: str
    info: VolumeInfo | None = None


class VolumeCreateFlag(enum.IntFlag):
    """``virStorageVolCreateFlags``."""

    NONE = 0
    PREALLOC_METADATA = 1
    REFLINK = 2


class VolumeResizeFlag(enum.IntFlag):
    """``virStorageVolResizeFlags``."""

    NONE = 0
    ALLOCATE = 1
    DELTA = 2
    SHRINK = 4


class WipeAlgorithm(enum.IntEnum):
    """``virStorageVolWipeAlgorithm``."""

    ZERO = 0
    NNSA = 1
    DOD = 2
    BSI = 3
    GUTMANN = 4
    SCHNEIER = 5
    PFITZNER7 = 6
    PFITZNER33 = 7
    RANDOM = 8
    TRIM = 9


# Called as bytes move: (bytes done, bytes in all).
Progress = Callable[[int, int], None]


class Hole(NamedTuple):
    """Bytes of a sparse stream that are zeroes and were never written."""

    length: int


def piece_size(piece: bytes | memoryview | Hole) -> int:
    """How many bytes of a stream a piece stands for."""
    return piece.length if isinstance(piece, Hole) else len(piece)


class StorageDriver(Protocol):
    """Pools and volumes. Lookups raise ``NO_STORAGE_POOL`` and ``NO_STORAGE_VOL``; sizes are bytes."""

    def connect_list_all_storage_pools(self) -> list[PoolRef]:
        """Every pool, active or defined."""

    def storage_pool_lookup_by_name(self, name: str) -> PoolRef:
        """Find by name."""

    def storage_pool_lookup_by_uuid(self, uuid: str) -> PoolRef:
        """Find by UUID."""

    def storage_pool_lookup_by_volume(self, volume: VolumeRef) -> PoolRef:
        """The pool that a volume is in."""

    def storage_pool_define_xml(self, xml: str) -> PoolRef:
        """Make or replace a persistent definition."""

    def connect_find_storage_pool_sources(self, type: str, source: str | None = None) -> str:
        """The storage that a host has for pools of a type, as a document; ``source`` is one that names the host."""

    def connect_get_storage_pool_capabilities(self) -> str:
        """The types of pools, as a document."""

    def storage_pool_create_xml(self, xml: str, *, build: bool = False, overwrite: bool | None = None) -> PoolRef:
        """Start a transient pool; see :meth:`storage_pool_create`."""

    def storage_pool_build(self, pool: PoolRef, *, overwrite: bool | None = None) -> None:
        """Make what the pool stands on: for ``dir`` the directory.

        Args:
            pool: it must be inactive.
            overwrite: for pools on devices: format them whatever is on them, or only where nothing is; None: as is
                usual for the type.
        """

    def storage_pool_create(self, pool: PoolRef, *, build: bool = False, overwrite: bool | None = None) -> None:
        """Start a defined pool; ``build`` it before, and so with ``overwrite``."""

    def storage_pool_destroy(self, pool: PoolRef) -> None:
        """Stop it; volumes stay."""

    def storage_pool_delete(self, pool: PoolRef) -> None:
        """Remove what ``build`` made; refuses when volumes are left."""

    def storage_pool_undefine(self, pool: PoolRef) -> None:
        """Drop the definition of an inactive pool."""

    def storage_pool_refresh(self, pool: PoolRef) -> None:
        """Look again at what is there."""

    def storage_pool_get_info(self, pool: PoolRef) -> PoolInfo:
        """State and sizes."""

    def storage_pool_get_xml_desc(self, pool: PoolRef, *, inactive: bool = False) -> str:
        """The pool's document."""

    def storage_pool_is_active(self, pool: PoolRef) -> bool:
        """Whether it is started."""

    def storage_pool_is_persistent(self, pool: PoolRef) -> bool:
        """Whether a definition exists."""

    def storage_pool_get_autostart(self, pool: PoolRef) -> bool:
        """Whether it starts with the driver."""

    def storage_pool_set_autostart(self, pool: PoolRef, autostart: bool) -> None:
        """Set whether it starts with the driver."""

    def storage_pool_list_all_volumes(self, pool: PoolRef) -> list[VolumeRef]:
        """The volumes of an active pool, sorted by name."""

    def storage_pool_list_volume_rows(self, pool: PoolRef, *, details: bool = False) -> list[VolumeRow]:
        """The same with their paths, and with ``details`` what they are, in one look."""

    def storage_vol_lookup_by_name(self, pool: PoolRef, name: str) -> VolumeRef:
        """Find in one pool by name."""

    def storage_vol_lookup_by_key(self, key: str) -> VolumeRef:
        """Find in any active pool by key."""

    def storage_vol_lookup_by_path(self, path: str) -> VolumeRef:
        """Find in any active pool by path."""

    def storage_vol_create_xml(
        self, pool: PoolRef, xml: str, flags: VolumeCreateFlag = VolumeCreateFlag.NONE
    ) -> VolumeRef:
        """Create an empty volume."""

    def storage_vol_create_xml_from(
        self,
        pool: PoolRef,
        xml: str,
        source: VolumeRef,
        flags: VolumeCreateFlag = VolumeCreateFlag.NONE,
        progress: Progress | None = None,
    ) -> VolumeRef:
        """Clone: create a volume and fill it with another's content."""

    def storage_vol_delete(self, volume: VolumeRef, *, snapshots: bool = False) -> None:
        """Remove it; ``snapshots``: and its snapshots, where the pool keeps some beside it."""

    def storage_vol_wipe_pattern(
        self, volume: VolumeRef, algorithm: WipeAlgorithm = WipeAlgorithm.ZERO, progress: Progress | None = None
    ) -> None:
        """Overwrite its content, so that it cannot be read back."""

    def storage_vol_resize(
        self, volume: VolumeRef, capacity: int, flags: VolumeResizeFlag = VolumeResizeFlag.NONE
    ) -> None:
        """Change its capacity; shrinking needs ``SHRINK``."""

    def storage_vol_get_info(self, volume: VolumeRef, *, physical: bool = False) -> VolumeInfo:
        """Type and sizes; ``physical``: where the file ends on the host in place of what it takes there."""

    def storage_vol_get_xml_desc(self, volume: VolumeRef) -> str:
        """The volume's document."""

    def storage_vol_get_path(self, volume: VolumeRef) -> str:
        """Where a hypervisor finds it."""

    def storage_vol_download(
        self, volume: VolumeRef, offset: int = 0, length: int = 0, *, sparse: bool = False
    ) -> Iterator[memoryview | Hole]:
        """The file's bytes as they are (of a qcow2: the qcow2), from ``offset``; ``length`` 0 is to the end.

        Holes are only told with ``sparse``. A piece is good until the next one is asked for.
        """

    def storage_vol_upload(
        self,
        volume: VolumeRef,
        source: Iterable[bytes | memoryview | Hole],
        offset: int = 0,
        length: int = 0,
        *,
        trusted: bool = False,
    ) -> None:
        """Overwrite the file's bytes; ``OPERATION_FAILED`` when there are more than ``length`` (0: no bound).

        When ``source`` is asked for more than ``length`` bytes, the volume is ready to be used.
        An image that names other files is stored, and these are not followed, unless it is ``trusted``.
        """

    def close(self) -> None:
        """Release what the driver holds."""
