"""What a driver is: references, states and the calls that the object model makes.

Drivers speak in references (:class:`DomainRef` and its siblings), XML strings and plain records, never in object-model
handles: that keeps the layers acyclic and is what goes over the wire. A method's name is the name of libvirt's remote
procedure (``domain_define_xml`` is ``REMOTE_PROC_DOMAIN_DEFINE_XML``). Errors are :class:`hostel.errors.VirtError`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable


class DomainRef(NamedTuple):
    """Names a domain; ``id`` is -1 while it is shut off."""

    name: str
    uuid: str
    id: int = -1


class NetworkRef(NamedTuple):
    """Names a network."""

    name: str
    uuid: str


class PoolRef(NamedTuple):
    """Names a storage pool."""

    name: str
    uuid: str


class VolumeRef(NamedTuple):
    """Names a volume: its pool, its name in the pool, and its key (for files: the path)."""

    pool: str
    name: str
    key: str


class DomainState(enum.IntEnum):
    """``virDomainState``."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7


class ShutoffReason(enum.IntEnum):
    """``virDomainShutoffReason``."""

    UNKNOWN = 0
    SHUTDOWN = 1
    DESTROYED = 2
    CRASHED = 3
    MIGRATED = 4
    SAVED = 5
    FAILED = 6
    FROM_SNAPSHOT = 7
    DAEMON = 8


class RunningReason(enum.IntEnum):
    """``virDomainRunningReason``."""

    UNKNOWN = 0
    BOOTED = 1
    MIGRATED = 2
    RESTORED = 3
    FROM_SNAPSHOT = 4
    UNPAUSED = 5


class PausedReason(enum.IntEnum):
    """``virDomainPausedReason``."""

    UNKNOWN = 0
    USER = 1
    MIGRATION = 2
    SAVE = 3
    DUMP = 4
    IOERROR = 5
    WATCHDOG = 6
    FROM_SNAPSHOT = 7
    SHUTTING_DOWN = 8


class CrashedReason(enum.IntEnum):
    """``virDomainCrashedReason``."""

    UNKNOWN = 0
    PANICKED = 1


class StateInfo(NamedTuple):
    """A domain's state, libvirt's numeric reason for it, and a sentence where there is more to say."""

    state: DomainState
    reason: int
    detail: str = ""


class DomainInfo(NamedTuple):
    """``virDomainInfo``: memory in KiB, CPU time in nanoseconds."""

    state: DomainState
    max_memory: int
    memory: int
    vcpus: int
    cpu_time: int


class SecurityModel(NamedTuple):
    """``virSecurityModel``: what keeps domains apart, and its domain of interpretation."""

    model: str
    doi: str


class SecurityLabel(NamedTuple):
    """``virSecurityLabel`` of a running domain."""

    label: str
    enforcing: bool


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


class UndefineFlag(enum.IntFlag):
    """``virDomainUndefineFlagsValues``, as far as they are implemented."""

    NONE = 0
    MANAGED_SAVE = 1
    SNAPSHOTS_METADATA = 2
    NVRAM = 4


class DomainXmlFlag(enum.IntFlag):
    """``virDomainXMLFlags``."""

    NONE = 0
    SECURE = 1
    INACTIVE = 2


class StartFlag(enum.IntFlag):
    """``virDomainCreateFlags``."""

    NONE = 0
    PAUSED = 1
    AUTODESTROY = 2


class DestroyFlag(enum.IntFlag):
    """``virDomainDestroyFlagsValues``."""

    DEFAULT = 0
    GRACEFUL = 1


# Called as bytes move: (bytes done, bytes in all).
Progress = Callable[[int, int], None]


class Hole(NamedTuple):
    """Bytes of a sparse stream that are zeroes and were never written."""

    length: int


@runtime_checkable
class ConsoleStream(Protocol):
    """A guest's character device, attached: blocking bytes both ways."""

    def read(self, length: int, timeout: float) -> bytes | None:
        """Read up to ``length`` bytes; ``b""`` at the end, None when ``timeout`` seconds passed with nothing."""

    def write(self, data: bytes) -> None:
        """Write all of ``data`` to the guest."""

    def close(self) -> None:
        """Detach; the guest runs on."""


class HypervisorDriver(Protocol):
    """Domains. Lookups raise ``NO_DOMAIN``; a call that the state forbids raises ``OPERATION_INVALID``."""

    def connect_get_type(self) -> str:
        """``QEMU`` or ``TEST``."""

    def connect_get_version(self) -> int:
        """The hypervisor's version: 1,000,000 * major + 1,000 * minor + release."""

    def connect_get_hostname(self) -> str:
        """The host's name."""

    def connect_get_capabilities(self) -> str:
        """The capabilities document."""

    def node_get_security_model(self) -> SecurityModel:
        """What keeps domains apart; the model is ``none`` where nothing does."""

    def connect_list_all_domains(self) -> list[DomainRef]:
        """Every domain, running or defined."""

    def domain_lookup_by_name(self, name: str) -> DomainRef:
        """Find by name."""

    def domain_lookup_by_uuid(self, uuid: str) -> DomainRef:
        """Find by UUID, in its canonical text form."""

    def domain_lookup_by_id(self, id: int) -> DomainRef:
        """Find a running domain by id."""

    def domain_define_xml(self, xml: str) -> DomainRef:
        """Make or replace a persistent definition."""

    def domain_create_xml(self, xml: str, flags: StartFlag = StartFlag.NONE) -> DomainRef:
        """Start a transient domain."""

    def domain_create(self, domain: DomainRef, flags: StartFlag = StartFlag.NONE) -> DomainRef:
        """Start a defined domain; returns the reference with its new id."""

    def domain_shutdown(self, domain: DomainRef) -> None:
        """Ask the guest to shut down (ACPI power button); returns at once."""

    def domain_reboot(self, domain: DomainRef) -> None:
        """Ask the guest to reboot; returns at once."""

    def domain_reset(self, domain: DomainRef) -> None:
        """Reset as the button does."""

    def domain_suspend(self, domain: DomainRef) -> None:
        """Stop the virtual CPUs."""

    def domain_resume(self, domain: DomainRef) -> None:
        """Let the virtual CPUs run on."""

    def domain_destroy(self, domain: DomainRef, flags: DestroyFlag = DestroyFlag.DEFAULT) -> None:
        """End the domain now; a transient one is gone afterwards."""

    def domain_undefine(self, domain: DomainRef, flags: UndefineFlag = UndefineFlag.NONE) -> None:
        """Drop the definition; a running domain becomes transient."""

    def domain_get_xml_desc(self, domain: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The live document, or with ``INACTIVE`` the persistent one."""

    def domain_get_os_type(self, domain: DomainRef) -> str:
        """``hvm``, or whatever the hypervisor calls what its guests are."""

    def domain_get_security_label(self, domain: DomainRef) -> SecurityLabel:
        """The label of a running domain; empty where there is none."""

    def domain_get_info(self, domain: DomainRef) -> DomainInfo:
        """State, memory, CPUs, CPU time."""

    def domain_get_state(self, domain: DomainRef) -> StateInfo:
        """State with its reason."""

    def domain_is_persistent(self, domain: DomainRef) -> bool:
        """Whether a definition exists."""

    def domain_get_autostart(self, domain: DomainRef) -> bool:
        """Whether it starts with the driver."""

    def domain_set_autostart(self, domain: DomainRef, autostart: bool) -> None:
        """Set whether it starts with the driver; ``OPERATION_INVALID`` for a transient domain."""

    def domain_open_console(
        self, domain: DomainRef, device: str | None = None, *, force: bool = False
    ) -> ConsoleStream:
        """Attach to a serial port or console by alias (``serial0``); the first one when None."""

    def connect_autostart(self) -> list[DomainRef]:
        """Start every domain marked for it that is not running; returns those started."""

    def close(self) -> None:
        """Release what the driver holds; running domains run on."""


class NetworkDriver(Protocol):
    """Virtual networks. Lookups raise ``NO_NETWORK``."""

    def connect_list_all_networks(self) -> list[NetworkRef]:
        """Every network, active or defined."""

    def network_lookup_by_name(self, name: str) -> NetworkRef:
        """Find by name."""

    def network_lookup_by_uuid(self, uuid: str) -> NetworkRef:
        """Find by UUID."""

    def network_define_xml(self, xml: str) -> NetworkRef:
        """Make or replace a persistent definition."""

    def network_create_xml(self, xml: str) -> NetworkRef:
        """Activate a transient network."""

    def network_undefine(self, network: NetworkRef) -> None:
        """Drop the definition; an active network becomes transient."""

    def network_create(self, network: NetworkRef) -> None:
        """Activate."""

    def network_destroy(self, network: NetworkRef) -> None:
        """Deactivate; a transient one is gone afterwards."""

    def network_is_active(self, network: NetworkRef) -> bool:
        """Whether guests can be attached."""

    def network_is_persistent(self, network: NetworkRef) -> bool:
        """Whether a definition exists."""

    def network_get_autostart(self, network: NetworkRef) -> bool:
        """Whether it is activated with the driver."""

    def network_set_autostart(self, network: NetworkRef, autostart: bool) -> None:
        """Set whether it is activated with the driver; ``OPERATION_INVALID`` for a transient network."""

    def network_get_xml_desc(self, network: NetworkRef, *, inactive: bool = False) -> str:
        """The active network's document, or with ``inactive`` the definition."""

    def network_get_bridge_name(self, network: NetworkRef) -> str:
        """The host bridge that guests are attached to; ``INTERNAL_ERROR`` where there is none."""


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

    def storage_pool_create_xml(self, xml: str, *, build: bool = False) -> PoolRef:
        """Start a transient pool."""

    def storage_pool_build(self, pool: PoolRef) -> None:
        """Make what the pool stands on: for ``dir`` the directory."""

    def storage_pool_create(self, pool: PoolRef, *, build: bool = False) -> None:
        """Start a defined pool."""

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

    def storage_vol_delete(self, volume: VolumeRef) -> None:
        """Remove it."""

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

        An image that names other files is stored, and these are not followed, unless it is ``trusted``.
        """

    def close(self) -> None:
        """Release what the driver holds."""
