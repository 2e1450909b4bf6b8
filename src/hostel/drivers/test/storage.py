"""Pools and volumes that are only names and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from hostel.drivers.adapters import check_flags
from hostel.drivers.base import (
    Hole,
    PoolInfo,
    PoolRef,
    PoolState,
    Progress,
    VolumeCreateFlag,
    VolumeInfo,
    VolumeRef,
    VolumeResizeFlag,
    VolumeRow,
    VolumeType,
    WipeAlgorithm,
)
from hostel.drivers.document import canonical_uuid
from hostel.drivers.fault import fault
from hostel.drivers.storage.conflict import conflicts
from hostel.drivers.storage.document import (
    POOL_TYPES,
    PoolDefinition,
    complete_volume,
    format_pool,
    parse_pool,
    parse_source,
)
from hostel.drivers.test.host import Host as TestHost
from hostel.drivers.test.host import TestPool, TestVolume
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.source import Host
from hostel.model.pool_sources import PoolSources
from hostel.model.storage import Adapter, PoolDevice, PoolSource, Volume

if TYPE_CHECKING:
    from hostel.drivers.test.nodedev import TestNodeDeviceDriver

# What volumes of a type of pools are; devices where it is not said.
_TYPES: Final = {
    **dict.fromkeys(("dir", "fs", "netfs", "vstorage"), VolumeType.FILE),
    **dict.fromkeys(("sheepdog", "iscsi-direct", "gluster", "rbd"), VolumeType.NETWORK),
}


class TestStorageDriver:
    """Implements :class:`hostel.drivers.base.StorageDriver` in memory; volumes have no content."""

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, host: TestHost) -> None:
        self._host = host

    def connect_list_all_storage_pools(self) -> list[PoolRef]:
        """Every pool."""
        with self._host.lock:
            return [_ref(pool) for pool in self._host.pools.values()]

    def storage_pool_lookup_by_name(self, name: str) -> PoolRef:
        """Find by name."""
        with self._host.lock:
            return _ref(self._by_name(name))

    def storage_pool_lookup_by_uuid(self, uuid: str) -> PoolRef:
        """Find by UUID."""
        with self._host.lock:
            for pool in self._host.pools.values():
                if pool.definition.uuid == canonical_uuid(uuid):
                    return _ref(pool)
        raise _fault(ErrorCode.NO_STORAGE_POOL, f"no storage pool with matching uuid '{uuid}'")

    def storage_pool_lookup_by_volume(self, volume: VolumeRef) -> PoolRef:
        """The pool that a volume is in."""
        return self.storage_pool_lookup_by_name(volume.pool)

    def storage_pool_define_xml(self, xml: str) -> PoolRef:
        """Make or replace a definition."""
        definition = parse_pool(xml)
        with self._host.lock:
            self._check_duplicate(definition)
            pool = self._host.pools.setdefault(definition.name, TestPool(definition, persistent=True))
            pool.persistent = True
            if pool.active:
                pool.next = definition  # it counts once the pool is stopped
            else:
                pool.definition = definition
            return PoolRef(definition.name, definition.uuid)

    def connect_find_storage_pool_sources(self, type: str, source: str | None = None) -> str:
        """Two volume groups, or a directory of the server that is asked for: what libvirt's test driver has."""
        if type not in POOL_TYPES[1:]:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"unknown storage pool type {type}")
        wanted = None if source is None else parse_source(source)
        if type == "logical":
            return PoolSources(sources=[_group(1), _group(2)]).format()
        if type != "netfs":
            raise _fault(ErrorCode.NO_SUPPORT, f"pool type '{type}' does not support source discovery")
        if wanted is None or not wanted.hosts:
            raise _fault(ErrorCode.INVALID_ARG, "hostname must be specified for netfs sources")
        found = PoolSource(hosts=[Host(name=wanted.hosts[0].name)], dir="/testshare", format_type="nfs")
        return PoolSources(sources=[found]).format()

    def connect_get_storage_pool_capabilities(self) -> str:
        """Refused, as by libvirt's test driver."""
        raise _unsupported("virConnectGetStoragePoolCapabilities")

    def storage_pool_create_xml(self, xml: str, *, build: bool = False, overwrite: bool | None = None) -> PoolRef:
        """Start a transient pool."""
        definition = parse_pool(xml)
        with self._host.lock:
            self._check_duplicate(definition)
            known = self._host.pools.get(definition.name)
            if known is not None and known.active:
                what = f"pool is already active as '{definition.name}'"
                raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.STORAGE)
            _add_adapter(self._host, definition)
            pool = TestPool(definition, persistent=known is not None)
            pool.active = True
            self._host.pools[definition.name] = pool
            return _ref(pool)

    def storage_pool_build(self, pool: PoolRef, *, overwrite: bool | None = None) -> None:
        """Nothing to make."""
        with self._host.lock:
            self._inactive(pool)

    def storage_pool_create(self, pool: PoolRef, *, build: bool = False, overwrite: bool | None = None) -> None:
        """Start a defined pool."""
        with self._host.lock:
            self._inactive(pool).active = True

    def storage_pool_destroy(self, pool: PoolRef) -> None:
        """Stop it; a transient pool is gone."""
        with self._host.lock:
            found = self._active(pool.name)
            found.active = False
            if _virtual_port(found.definition) is not None:
                _devices(self._host).remove_adapter()
            found.definition = found.next or found.definition
            found.next = None
            if not found.persistent:
                del self._host.pools[pool.name]

    def storage_pool_delete(self, pool: PoolRef) -> None:
        """Nothing to remove."""
        with self._host.lock:
            self._inactive(pool)

    def storage_pool_undefine(self, pool: PoolRef) -> None:
        """Drop an inactive pool."""
        with self._host.lock:
            self._inactive(pool)
            del self._host.pools[pool.name]

    def storage_pool_refresh(self, pool: PoolRef) -> None:
        """Nothing to look at."""
        with self._host.lock:
            self._active(pool.name)

    def storage_pool_get_info(self, pool: PoolRef) -> PoolInfo:
        """State and sizes."""
        with self._host.lock:
            found = self._by_name(pool.name)
            state = PoolState.RUNNING if found.active else PoolState.INACTIVE
            return PoolInfo(state, *found.sizes)

    def storage_pool_get_xml_desc(self, pool: PoolRef, *, inactive: bool = False) -> str:
        """The pool's document."""
        with self._host.lock:
            found = self._by_name(pool.name)
            if inactive and found.next is not None:
                return format_pool(found.next)
            return format_pool(found.definition, found.sizes)

    def storage_pool_is_active(self, pool: PoolRef) -> bool:
        """Whether it is started."""
        with self._host.lock:
            return self._by_ref(pool).active

    def storage_pool_is_persistent(self, pool: PoolRef) -> bool:
        """Whether a definition exists."""
        with self._host.lock:
            return self._by_ref(pool).persistent

    def storage_pool_get_autostart(self, pool: PoolRef) -> bool:
        """Whether it is marked."""
        with self._host.lock:
            return self._by_name(pool.name).autostart

    def storage_pool_set_autostart(self, pool: PoolRef, autostart: bool) -> None:
        """Mark it."""
        with self._host.lock:
            found = self._by_name(pool.name)
            if not found.persistent:
                raise _fault(ErrorCode.INVALID_ARG, "pool has no config file")
            found.autostart = autostart

    def storage_pool_list_all_volumes(self, pool: PoolRef) -> list[VolumeRef]:
        """The volumes of an active pool, sorted by name."""
        with self._host.lock:
            found = self._by_ref(pool)
            if not found.active:
                raise _fault(ErrorCode.OPERATION_INVALID, "storage pool is not active")
            return [_volume_ref(found, found.volumes[name]) for name in sorted(found.volumes)]

    def storage_pool_list_volume_rows(self, pool: PoolRef, *, details: bool = False) -> list[VolumeRow]:
        """The same with their paths and what they are."""
        with self._host.lock:
            refs = self.storage_pool_list_all_volumes(pool)
            found = self._host.pools[pool.name]
            return [VolumeRow(ref, found.volumes[ref.name].path, _info(found, found.volumes[ref.name])) for ref in refs]

    def storage_vol_lookup_by_name(self, pool: PoolRef, name: str) -> VolumeRef:
        """Find in one pool by name."""
        with self._host.lock:
            found = self._active(pool.name)
            return _volume_ref(found, _volume(found, name))

    def storage_vol_lookup_by_key(self, key: str) -> VolumeRef:
        """Find in any active pool by key."""
        found = self._search(key)
        if found is None:
            raise _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching key '{key}'")
        return found

    def storage_vol_lookup_by_path(self, path: str) -> VolumeRef:
        """Find in any active pool by path."""
        found = self._search(path)
        if found is None:
            raise _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching path '{path}'")
        return found

    def storage_vol_create_xml(
        self, pool: PoolRef, xml: str, flags: VolumeCreateFlag = VolumeCreateFlag.NONE
    ) -> VolumeRef:
        """Create a volume."""
        check_flags(flags, VolumeCreateFlag.NONE, "testStorageVolCreateXML")
        with self._host.lock:
            return self._create(self._active(pool.name), xml)

    def storage_vol_create_xml_from(
        self,
        pool: PoolRef,
        xml: str,
        source: VolumeRef,
        flags: VolumeCreateFlag = VolumeCreateFlag.NONE,
        progress: Progress | None = None,
    ) -> VolumeRef:
        """Create a volume as if from another."""
        check_flags(flags, VolumeCreateFlag.NONE, "testStorageVolCreateXMLFrom")
        with self._host.lock:
            return self._create(self._active(pool.name), xml, source)

    def storage_vol_delete(self, volume: VolumeRef, *, snapshots: bool = False) -> None:
        """Remove it."""
        with self._host.lock:
            pool = self._active(volume.pool)
            _volume(pool, volume.name)
            del pool.volumes[volume.name]

    def storage_vol_wipe_pattern(
        self, volume: VolumeRef, algorithm: WipeAlgorithm = WipeAlgorithm.ZERO, progress: Progress | None = None
    ) -> None:
        """Refused, as by libvirt's test driver."""
        raise _unsupported("virStorageVolWipe" if algorithm is WipeAlgorithm.ZERO else "virStorageVolWipePattern")

    def storage_vol_resize(
        self, volume: VolumeRef, capacity: int, flags: VolumeResizeFlag = VolumeResizeFlag.NONE
    ) -> None:
        """Refused, as by libvirt's test driver."""
        raise _unsupported("virStorageVolResize")

    def storage_vol_get_info(self, volume: VolumeRef, *, physical: bool = False) -> VolumeInfo:
        """Type and sizes; physical ones are refused, as by libvirt's test driver."""
        if physical:
            raise _unsupported("virStorageVolGetInfoFlags")
        with self._host.lock:
            pool = self._active(volume.pool)
            return _info(pool, _volume(pool, volume.name))

    def storage_vol_get_xml_desc(self, volume: VolumeRef) -> str:
        """The volume's document."""
        with self._host.lock:
            return _volume(self._active(volume.pool), volume.name).document.format()

    def storage_vol_get_path(self, volume: VolumeRef) -> str:
        """The path that it would have."""
        with self._host.lock:
            return _volume(self._active(volume.pool), volume.name).path

    def storage_vol_download(
        self, volume: VolumeRef, offset: int = 0, length: int = 0, *, sparse: bool = False
    ) -> Iterator[memoryview | Hole]:
        """Refused, as by libvirt's test driver."""
        raise _unsupported("virStorageVolDownload")

    def storage_vol_upload(
        self,
        volume: VolumeRef,
        source: Iterable[bytes | memoryview | Hole],
        offset: int = 0,
        length: int = 0,
        *,
        trusted: bool = False,
    ) -> None:
        """Refused, as by libvirt's test driver."""
        raise _unsupported("virStorageVolUpload")

    def close(self) -> None:
        """Nothing is held."""

    def _create(self, pool: TestPool, xml: str, source: VolumeRef | None = None) -> VolumeRef:
        volume = complete_volume(xml, pool.definition.type)
        if volume.name in pool.volumes:
            raise _fault(ErrorCode.OPERATION_FAILED, "storage vol already exists")
        if source is not None:
            _volume(self._active(source.pool), source.name)
        return _volume_ref(pool, _add(pool, volume))

    def _by_name(self, name: str) -> TestPool:
        pool = self._host.pools.get(name)
        if pool is None:
            raise _fault(ErrorCode.NO_STORAGE_POOL, f"no storage pool with matching name '{name}'")
        return pool

    def _by_ref(self, ref: PoolRef) -> TestPool:
        pool = self._host.pools.get(ref.name)
        if pool is None or pool.definition.uuid != ref.uuid:
            raise _fault(ErrorCode.NO_STORAGE_POOL, f"no storage pool with matching uuid '{ref.uuid}'")
        return pool

    def _active(self, name: str) -> TestPool:
        pool = self._by_name(name)
        if not pool.active:
            raise _fault(ErrorCode.OPERATION_INVALID, f"storage pool '{name}' is not active")
        return pool

    def _inactive(self, ref: PoolRef) -> TestPool:
        pool = self._by_name(ref.name)
        if pool.active:
            raise _fault(ErrorCode.OPERATION_INVALID, f"storage pool '{ref.name}' is active")
        return pool

    def _check_duplicate(self, definition: PoolDefinition) -> None:
        for pool in self._host.pools.values():
            known = pool.definition
            if known.uuid == definition.uuid and known.name != definition.name:
                raise _taken(f"pool '{known.name}' is already defined with uuid {known.uuid}")
            if known.name == definition.name and known.uuid != definition.uuid:
                raise _taken(f"pool '{known.name}' already exists with uuid {known.uuid}")
        for pool in self._host.pools.values():
            known = pool.definition
            if known.name != definition.name and conflicts(known, definition):
                raise _taken(f"Storage source conflict with pool: '{known.name}'")

    def _search(self, path: str) -> VolumeRef | None:
        with self._host.lock:
            for pool in self._host.pools.values():
                for volume in pool.volumes.values():
                    if pool.active and volume.path == path:
                        return _volume_ref(pool, volume)
        return None


def _virtual_port(definition: PoolDefinition) -> Adapter | None:
    """The virtual Fibre Channel adapter that a pool is on, where it is on one."""
    adapter = definition.source.adapter
    return adapter if adapter is not None and adapter.type == "fc_host" else None


def _add_adapter(host: TestHost, definition: PoolDefinition) -> None:
    """Invent the virtual Fibre Channel adapter that a pool is on (``testCreateVport``)."""
    adapter = _virtual_port(definition)
    if adapter is not None:
        from hostel.drivers.nodedev.vport import WorldWideNames

        _devices(host).add_adapter(WorldWideNames(adapter.wwnn or "", adapter.wwpn or ""))


def _devices(host: TestHost) -> TestNodeDeviceDriver:
    from hostel.drivers.test.nodedev import node_device_driver

    return node_device_driver(host)


def _info(pool: TestPool, volume: TestVolume) -> VolumeInfo:
    """What a volume is; its type is the pool's affair, whatever its document says."""
    kind = _TYPES.get(pool.definition.type, VolumeType.BLOCK)
    return VolumeInfo(kind, volume.capacity, volume.allocation)


def add_volume(pool: TestPool, xml: str, *, place: str | None) -> None:
    """Put a volume into a pool of a host that a file describes; ``place`` is its path, where the file says it."""
    volume = complete_volume(xml, pool.definition.type)
    if volume.name in pool.volumes:
        raise _fault(ErrorCode.OPERATION_FAILED, f"storage vol '{volume.name}' is there twice")
    _add(pool, volume, place)


def _add(pool: TestPool, document: Volume, place: str | None = None) -> TestVolume:
    volume = TestVolume(document, place or f"{pool.definition.path}/{document.name}")
    if volume.allocation > pool.sizes.available:
        raise _fault(ErrorCode.INTERNAL_ERROR, f"Not enough free space in pool for volume '{volume.name}'")
    pool.volumes[volume.name] = volume
    return volume


def _volume(pool: TestPool, name: str) -> TestVolume:
    volume = pool.volumes.get(name)
    if volume is None:
        raise _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching name '{name}'")
    return volume


def _group(number: int) -> PoolSource:
    devices = [PoolDevice(path=f"/dev/sda{19 + number}")]
    return PoolSource(devices=devices, name=f"testvg{number}", format_type="lvm2")


def _ref(pool: TestPool) -> PoolRef:
    return PoolRef(pool.definition.name, pool.definition.uuid)


def _volume_ref(pool: TestPool, volume: TestVolume) -> VolumeRef:
    return VolumeRef(pool.definition.name, volume.name, volume.path)


def _taken(detail: str) -> VirtError:
    """What a document says is another pool's, as libvirt's list of pools puts it."""
    return fault(ErrorCode.OPERATION_FAILED, detail, ErrorDomain.STORAGE)


def _unsupported(call: str) -> VirtError:
    return _fault(ErrorCode.NO_SUPPORT, call)


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.TEST)
