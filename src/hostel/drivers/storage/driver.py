"""The session's storage driver: pools of this user, in this process, without a daemon.

libvirt's rules and messages (``src/storage/storage_driver.c``); what a pool type does itself is in ``backends``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

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
    WipeAlgorithm,
)
from hostel.drivers.boot import Missed, nobody, noting
from hostel.drivers.document import canonical_uuid
from hostel.drivers.fault import fault
from hostel.drivers.storage.backends.base import BACKENDS, Backend, Host, Listed, Overwrite, Source, backend_for
from hostel.drivers.storage.conflict import conflicts
from hostel.drivers.storage.document import (
    POOL_TYPES,
    PoolDefinition,
    VolumeFacts,
    format_pool,
    format_volume,
    parse_pool,
    parse_source,
    parse_volume,
)
from hostel.drivers.storage.pools import Pool, Pools
from hostel.drivers.storage.secret import secrets_of
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.path import clean_path
from hostel.units import INT64_MAX


class SessionStorageDriver:
    """Implements :class:`hostel.drivers.base.StorageDriver` over files that all processes share."""

    def __init__(self, directories: Directories, host: Host | None = None) -> None:
        self._pools = Pools(directories)
        self._host = host or Host(secret=secrets_of(directories))

    def forget_running(self) -> None:
        """The host was started anew: no pool runs, and transient ones are gone."""
        with self._pools.locked():
            self._pools.drop_all_running()

    def connect_autostart(self, missed: Missed = nobody) -> list[PoolRef]:
        """Start the pools marked for it that are not running; one that fails does not keep the others."""
        started = []
        for name in self._pools.autostarts():
            with noting(f"storage pool '{name}'", missed):
                pool = self._find(name)
                if not self._is_active(pool):
                    self.storage_pool_create(_ref(pool.current))
                    started.append(_ref(pool.current))
        return started

    def connect_list_all_storage_pools(self) -> list[PoolRef]:
        """Every pool, by name."""
        return [_ref(pool.current) for pool in self._pools.all()]

    def storage_pool_lookup_by_name(self, name: str) -> PoolRef:
        """Find by name."""
        return _ref(self._find(name).current)

    def storage_pool_lookup_by_uuid(self, uuid: str) -> PoolRef:
        """Find by UUID."""
        wanted = canonical_uuid(uuid)
        for pool in self._pools.all():
            if pool.current.uuid == wanted:
                return _ref(pool.current)
        raise _fault(ErrorCode.NO_STORAGE_POOL, f"no storage pool with matching uuid '{uuid}'")

    def storage_pool_lookup_by_volume(self, volume: VolumeRef) -> PoolRef:
        """The pool that a volume is in."""
        return self.storage_pool_lookup_by_name(volume.pool)

    def storage_pool_define_xml(self, xml: str) -> PoolRef:
        """Make or replace a persistent definition."""
        pool = parse_pool(xml)
        self._backend(pool).check(pool)
        with self._pools.locked():
            self._check_duplicate(pool)
            self._pools.save_definition(pool)
        return _ref(pool)

    def connect_find_storage_pool_sources(self, type: str, source: str | None = None) -> str:
        """The storage that a host has for pools of a type, as a document."""
        if type not in POOL_TYPES:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"unknown storage pool type {type}")
        wanted = None if source is None else parse_source(source)
        found = backend_for(type, self._host).find_sources(wanted)
        if found is None:
            raise _fault(ErrorCode.NO_SUPPORT, f"pool type '{type}' does not support source discovery")
        return found.format()

    def connect_get_storage_pool_capabilities(self) -> str:
        """The types of pools, as a document."""
        from hostel.model.storage import PoolType
        from hostel.model.storage_capabilities import storage_capabilities

        return storage_capabilities([PoolType(name) for name in BACKENDS]).format()

    def storage_pool_create_xml(self, xml: str, *, build: bool = False, overwrite: bool | None = None) -> PoolRef:
        """Start a transient pool."""
        pool = parse_pool(xml)
        self._backend(pool).check(pool)
        with self._pools.changing(pool.name):
            with self._pools.locked():
                self._check_duplicate(pool, for_start=True)
            self._start(pool, build=build, overwrite=overwrite)
        return _ref(pool)

    def storage_pool_build(self, pool: PoolRef, *, overwrite: bool | None = None) -> None:
        """Make what the pool stands on."""
        with self._pools.changing(pool.name):
            found = self._by_ref(pool)
            self._require_inactive(found, "already active")
            self._backend(found.current).build(found.current, Overwrite.of(overwrite))

    def storage_pool_create(self, pool: PoolRef, *, build: bool = False, overwrite: bool | None = None) -> None:
        """Start a defined pool."""
        with self._pools.changing(pool.name):
            found = self._by_ref(pool)
            self._require_inactive(found, "already active")
            self._start(found.defined or found.current, build=build, overwrite=overwrite)

    def storage_pool_destroy(self, pool: PoolRef) -> None:
        """Stop it; volumes stay."""
        with self._pools.changing(pool.name):
            found = self._require_active(self._by_ref(pool))
            self._backend(found).stop(found)
            with self._pools.locked():
                self._pools.drop_running(found.name)

    def storage_pool_delete(self, pool: PoolRef) -> None:
        """Remove what ``build`` made; a directory must be empty."""
        with self._pools.changing(pool.name):
            found = self._by_ref(pool)
            self._require_inactive(found, "still active")
            self._backend(found.current).delete(found.current)

    def storage_pool_undefine(self, pool: PoolRef) -> None:
        """Drop the definition of an inactive pool."""
        with self._pools.changing(pool.name), self._pools.locked():
            found = self._by_ref(pool)
            self._require_inactive(found, "still active")
            self._pools.drop_running(found.current.name)
            self._pools.drop_definition(found.current.name)

    def storage_pool_refresh(self, pool: PoolRef) -> None:
        """Look again at what is there; a pool that cannot be looked at stops."""
        with self._pools.changing(pool.name):
            found = self._by_ref(pool)
            if found.running is None:
                raise _not_active(found)
            try:
                fresh = self._backend(found.running).refresh(found.running)
            except VirtError:
                with self._pools.locked():
                    self._pools.drop_running(found.running.name)
                raise
            with self._pools.locked():
                self._pools.save_running(fresh)

    def storage_pool_get_info(self, pool: PoolRef) -> PoolInfo:
        """State and sizes; none of an inactive pool, nor of one whose server does not answer."""
        found = self._by_ref(pool)
        if not self._is_active(found):
            return PoolInfo(PoolState.INACTIVE, 0, 0, 0)
        try:
            _, sizes = self._backend(found.current).describe(found.current)
        except VirtError:
            return PoolInfo(PoolState.INACCESSIBLE, 0, 0, 0)  # a refresh says why
        return PoolInfo(PoolState.RUNNING, sizes.capacity, sizes.allocation, sizes.available)

    def storage_pool_get_xml_desc(self, pool: PoolRef, *, inactive: bool = False) -> str:
        """The pool's document."""
        found = self._by_ref(pool)
        if not self._is_active(found) or (inactive and found.is_redefined):
            return format_pool(found.defined or found.current)
        try:
            return format_pool(*self._backend(found.current).describe(found.current))
        except VirtError:
            return format_pool(found.current)  # what is said of it is known without asking its server

    def storage_pool_is_active(self, pool: PoolRef) -> bool:
        """Whether it is started."""
        return self._is_active(self._by_ref(pool))

    def storage_pool_is_persistent(self, pool: PoolRef) -> bool:
        """Whether a definition exists."""
        return self._by_ref(pool).defined is not None

    def storage_pool_get_autostart(self, pool: PoolRef) -> bool:
        """Whether it starts with the driver."""
        return self._pools.autostart(self._by_ref(pool).current.name)

    def storage_pool_set_autostart(self, pool: PoolRef, autostart: bool) -> None:
        """Set whether it starts with the driver."""
        with self._pools.locked():
            found = self._by_ref(pool)
            if found.defined is None:
                raise _fault(ErrorCode.INTERNAL_ERROR, "pool has no config file")
            self._pools.set_autostart(found.defined.name, autostart)

    def storage_pool_list_all_volumes(self, pool: PoolRef) -> list[VolumeRef]:
        """The volumes of an active pool, sorted by name."""
        running = self._require_active(self._by_ref(pool))
        return sorted(_volume_ref(running, one) for one in self._backend(running).listing(running))

    def storage_pool_list_volume_rows(self, pool: PoolRef, *, details: bool = False) -> list[VolumeRow]:
        """The same with their paths, and with ``details`` what they are, in one look."""
        running = self._require_active(self._by_ref(pool))
        backend = self._backend(running)
        if not details:
            return sorted(VolumeRow(_volume_ref(running, one), one.path) for one in backend.listing(running))
        return sorted(
            VolumeRow(
                VolumeRef(running.name, facts.name, facts.unique),
                facts.path,
                VolumeInfo(facts.type, facts.capacity, facts.allocation),
            )
            for facts in backend.describe_all(running)
        )

    def storage_vol_lookup_by_name(self, pool: PoolRef, name: str) -> VolumeRef:
        """Find in one pool by name."""
        running = self._require_active(self._by_ref(pool))
        return _volume_ref(running, self._listed(running, name))

    def storage_vol_lookup_by_key(self, key: str) -> VolumeRef:
        """Find in any active pool by key."""
        found = self._search(key, by_key=True)
        if found is None:
            raise _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching key {key}")
        return found

    def storage_vol_lookup_by_path(self, path: str) -> VolumeRef:
        """Find in any active pool by path."""
        clean = clean_path(path)
        found = self._search(clean, by_key=False)
        if found is None:
            shown = "" if clean == path else f" ({clean})"
            raise _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching path '{path}'{shown}")
        return found

    def storage_vol_create_xml(
        self, pool: PoolRef, xml: str, flags: VolumeCreateFlag = VolumeCreateFlag.NONE
    ) -> VolumeRef:
        """Create an empty volume."""
        check_flags(flags, VolumeCreateFlag.PREALLOC_METADATA, "storageVolCreateXML")
        running = self._require_active(self._by_ref(pool))
        backend = self._backend(running)
        volume = parse_volume(xml, type=running.type)
        with self._pools.changing_volumes(running.name, backend):
            if backend.lookup(running, volume.name) is not None:
                raise _fault(ErrorCode.STORAGE_VOL_EXIST, f"'{volume.name}'")
            backend.create(running, volume, flags)
        return _volume_ref(running, self._listed(running, volume.name))

    def storage_vol_create_xml_from(
        self,
        pool: PoolRef,
        xml: str,
        source: VolumeRef,
        flags: VolumeCreateFlag = VolumeCreateFlag.NONE,
        progress: Progress | None = None,
    ) -> VolumeRef:
        """Clone: create a volume and fill it with another's content."""
        running = self._require_active(self._by_ref(pool))
        source_pool = self._require_active(self._find(source.pool))
        facts = self._facts(source_pool, source.name)
        backend = self._backend(running)
        volume = parse_volume(xml, type=running.type, capacity_optional=True)
        if backend.lookup(running, volume.name) is not None:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"storage volume name '{volume.name}' already in use.")
        backend.create_from(running, volume, Source(facts, self._directories(), source_pool), flags, progress)
        return _volume_ref(running, self._listed(running, volume.name))

    def storage_vol_delete(self, volume: VolumeRef, *, snapshots: bool = False) -> None:
        """Remove it."""
        backend, pool, facts = self._volume(volume)
        with self._pools.changing_volumes(pool.name, backend):
            backend.remove(pool, facts, snapshots=snapshots)

    def storage_vol_wipe_pattern(
        self, volume: VolumeRef, algorithm: WipeAlgorithm = WipeAlgorithm.ZERO, progress: Progress | None = None
    ) -> None:
        """Overwrite its content."""
        backend, pool, facts = self._volume(volume)
        backend.wipe(pool, facts, algorithm, progress)

    def storage_vol_resize(
        self, volume: VolumeRef, capacity: int, flags: VolumeResizeFlag = VolumeResizeFlag.NONE
    ) -> None:
        """Change its capacity; shrinking needs ``SHRINK``."""
        backend, pool, facts = self._volume(volume)
        if capacity < 0:
            raise _fault(ErrorCode.INVALID_ARG, f"capacity {capacity} of volume '{volume.name}' is negative")
        if not capacity and not flags & (VolumeResizeFlag.DELTA | VolumeResizeFlag.SHRINK):
            raise VirtError(  # libvirt's library says so, without the beginning that its daemon's words have
                ErrorCode.INVALID_ARG,
                "capacity in virStorageVolResize cannot be zero without 'delta' or 'shrink' flags set",
                domain=ErrorDomain.STORAGE,
            )
        if flags & VolumeResizeFlag.DELTA:
            if flags & VolumeResizeFlag.SHRINK:
                capacity = facts.capacity - min(capacity, facts.capacity)
            else:
                capacity = facts.capacity + capacity
        if capacity > INT64_MAX:
            raise _fault(ErrorCode.OVERFLOW, f"value too large: {capacity}")
        if capacity < facts.allocation:
            raise _fault(ErrorCode.INVALID_ARG, "can't shrink capacity below existing allocation")
        if capacity < facts.capacity and not flags & VolumeResizeFlag.SHRINK:
            raise _fault(
                ErrorCode.INVALID_ARG,
                "Can't shrink capacity below current capacity unless shrink flag explicitly specified",
            )
        if flags & VolumeResizeFlag.ALLOCATE and capacity - facts.allocation > backend.describe(pool)[1].available:
            raise _fault(ErrorCode.OPERATION_FAILED, "Not enough space left in storage pool")
        backend.resize(pool, facts, capacity, flags, self._directories())

    def storage_vol_get_info(self, volume: VolumeRef, *, physical: bool = False) -> VolumeInfo:
        """Type and sizes."""
        _, _, facts = self._volume(volume)
        return VolumeInfo(facts.type, facts.capacity, facts.physical if physical else facts.allocation)

    def storage_vol_get_xml_desc(self, volume: VolumeRef) -> str:
        """The volume's document."""
        _, _, facts = self._volume(volume)
        return format_volume(facts, self._backing_facts(facts))

    def storage_vol_get_path(self, volume: VolumeRef) -> str:
        """Where a hypervisor finds it."""
        _, _, facts = self._volume(volume)
        return facts.path

    def storage_vol_download(
        self, volume: VolumeRef, offset: int = 0, length: int = 0, *, sparse: bool = False
    ) -> Iterator[memoryview | Hole]:
        """The file's bytes as they are, from ``offset``; ``length`` 0 is to the end."""
        _check_range(volume, offset, length)
        backend, pool, facts = self._volume(volume)
        return backend.download(pool, facts, offset, length, sparse=sparse)

    def storage_vol_upload(
        self,
        volume: VolumeRef,
        source: Iterable[bytes | memoryview | Hole],
        offset: int = 0,
        length: int = 0,
        *,
        trusted: bool = False,
    ) -> None:
        """Overwrite the file's bytes."""
        _check_range(volume, offset, length)
        backend, pool, facts = self._volume(volume)
        backend.upload(pool, facts, source, offset, length, trusted=trusted)

    def close(self) -> None:
        """Nothing is held."""

    def _backend(self, pool: PoolDefinition) -> Backend:
        return backend_for(pool.type, self._host)

    def _start(self, pool: PoolDefinition, *, build: bool, overwrite: bool | None) -> None:
        """Start a pool that is not; what was started is stopped again where it cannot be looked at."""
        backend = self._backend(pool)
        if build or overwrite is not None:
            backend.build(pool, Overwrite.of(overwrite))
        backend.start(pool)
        try:
            fresh = backend.refresh(pool)
            with self._pools.locked():
                self._pools.save_running(fresh)
        except VirtError:
            with contextlib.suppress(VirtError):
                backend.stop(pool)
            raise

    def _find(self, name: str) -> Pool:
        pool = self._pools.find(name)
        if pool is None:
            raise _fault(ErrorCode.NO_STORAGE_POOL, f"no storage pool with matching name '{name}'")
        return pool

    def _by_ref(self, ref: PoolRef) -> Pool:
        pool = self._pools.find(ref.name)
        # Another pool may have taken the name since.
        if pool is None or pool.current.uuid != ref.uuid:
            raise _fault(ErrorCode.NO_STORAGE_POOL, f"no storage pool with matching uuid '{ref.uuid}' ({ref.name})")
        return pool

    def _is_active(self, pool: Pool) -> bool:
        return pool.running is not None and self._backend(pool.running).is_running(pool.running)

    def _require_active(self, pool: Pool) -> PoolDefinition:
        if pool.running is None or not self._is_active(pool):
            raise _not_active(pool)
        return pool.running

    def _require_inactive(self, pool: Pool, what: str) -> None:
        if self._is_active(pool):
            raise _fault(ErrorCode.OPERATION_INVALID, f"storage pool '{pool.current.name}' is {what}")

    def _check_duplicate(self, pool: PoolDefinition, *, for_start: bool = False) -> None:
        """Refuse a document that takes another pool's UUID, name or place; the caller holds the lock."""
        others = self._pools.all()
        for other in others:
            known = other.current
            if known.uuid == pool.uuid and known.name != pool.name:
                raise _fault(
                    ErrorCode.OPERATION_FAILED, f"pool '{known.name}' is already defined with uuid {known.uuid}"
                )
        same = self._pools.find(pool.name)
        if same is not None and same.current.uuid != pool.uuid:
            raise _fault(ErrorCode.OPERATION_FAILED, f"pool '{pool.name}' already exists with uuid {same.current.uuid}")
        if same is not None and for_start and self._is_active(same):
            raise _fault(ErrorCode.OPERATION_INVALID, f"pool is already active as '{pool.name}'")
        for other in others:
            if other.current.name != pool.name and any(known is not None and conflicts(known, pool) for known in other):
                raise _fault(ErrorCode.OPERATION_FAILED, f"Storage source conflict with pool: '{other.current.name}'")

    def _facts(self, pool: PoolDefinition, name: str) -> VolumeFacts:
        facts = self._backend(pool).volume(pool, name)
        if facts is None:
            raise _no_volume(name)
        return facts

    def _listed(self, pool: PoolDefinition, name: str) -> Listed:
        found = self._backend(pool).lookup(pool, name)
        if found is None:
            raise _no_volume(name)
        return found

    def _volume(self, volume: VolumeRef) -> tuple[Backend, PoolDefinition, VolumeFacts]:
        pool = self._require_active(self._find(volume.pool))
        return self._backend(pool), pool, self._facts(pool, volume.name)

    def _backing_facts(self, facts: VolumeFacts) -> VolumeFacts | None:
        """The facts of a volume's backing file where that is a volume itself: nothing else is looked at."""
        if facts.backing is None:
            return None
        found = self._search(facts.backing.path, by_key=False)
        return None if found is None else self._facts(self._require_active(self._find(found.pool)), found.name)

    def _active(self) -> Iterator[PoolDefinition]:
        for pool in self._pools.all():
            if pool.running is not None and self._is_active(pool):
                yield pool.running

    def _search(self, word: str, *, by_key: bool) -> VolumeRef | None:
        for pool in self._active():
            # One whose server is away must not hide what the others have.
            with contextlib.suppress(VirtError):
                if (found := self._backend(pool).find(pool, word, by_key=by_key)) is not None:
                    return _volume_ref(pool, found)
        return None

    def _directories(self) -> frozenset[str]:
        return frozenset(os.path.realpath(pool.path) for pool in self._active() if self._backend(pool).has_files)


def _ref(pool: PoolDefinition) -> PoolRef:
    return PoolRef(pool.name, pool.uuid)


def _volume_ref(pool: PoolDefinition, volume: Listed) -> VolumeRef:
    return VolumeRef(pool.name, volume.name, volume.key)


def _no_volume(name: str) -> VirtError:
    return _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching name '{name}'")


def _not_active(pool: Pool) -> VirtError:
    return _fault(ErrorCode.OPERATION_INVALID, f"storage pool '{pool.current.name}' is not active")


def _check_range(volume: VolumeRef, offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > INT64_MAX:
        raise _fault(
            ErrorCode.INVALID_ARG, f"volume '{volume.name}': offset {offset} with length {length} is no range of bytes"
        )


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.STORAGE)
