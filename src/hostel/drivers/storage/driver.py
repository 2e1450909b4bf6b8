"""The session's storage driver: pools of this user, in this process, without a daemon.

libvirt's rules and messages (``src/storage/storage_driver.c``); what a pool type does itself is in ``backends``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

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
    WipeAlgorithm,
)
from hostel.drivers.document import canonical_uuid
from hostel.drivers.fault import fault
from hostel.drivers.storage.backends.base import Backend, Source, backend_for
from hostel.drivers.storage.document import (
    PoolDefinition,
    VolumeFacts,
    clean_path,
    format_pool,
    format_volume,
    parse_pool,
    parse_volume,
)
from hostel.drivers.storage.pools import Pool, Pools
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.units import INT64_MAX


class SessionStorageDriver:
    """Implements :class:`hostel.drivers.base.StorageDriver` over files that all processes share."""

    def __init__(self, directories: Directories) -> None:
        self._pools = Pools(directories)

    def forget_running(self) -> None:
        """The host was started anew: no pool runs, and transient ones are gone."""
        with self._pools.locked():
            self._pools.drop_all_running()

    def connect_autostart(self) -> list[PoolRef]:
        """Start the pools marked for it that are not running; one that fails does not keep the others."""
        started = []
        for name in self._pools.autostarts():
            with contextlib.suppress(VirtError):
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
        backend_for(pool.type).check(pool)
        with self._pools.locked():
            self._check_duplicate(pool)
            self._pools.save_definition(pool)
        return _ref(pool)

    def storage_pool_create_xml(self, xml: str, *, build: bool = False) -> PoolRef:
        """Start a transient pool."""
        pool = parse_pool(xml)
        backend = backend_for(pool.type)
        backend.check(pool)
        with self._pools.locked():
            self._check_duplicate(pool, for_start=True)
            self._start(backend, pool, build=build)
        return _ref(pool)

    def storage_pool_build(self, pool: PoolRef) -> None:
        """Make what the pool stands on."""
        with self._pools.locked():
            found = self._by_ref(pool)
            self._require_inactive(found, "already active")
            backend_for(found.current.type).build(found.current)

    def storage_pool_create(self, pool: PoolRef, *, build: bool = False) -> None:
        """Start a defined pool."""
        with self._pools.locked():
            found = self._by_ref(pool)
            self._require_inactive(found, "already active")
            definition = found.defined or found.current
            self._start(backend_for(definition.type), definition, build=build)

    def storage_pool_destroy(self, pool: PoolRef) -> None:
        """Stop it; volumes stay."""
        with self._pools.locked():
            found = self._require_active(self._by_ref(pool))
            backend_for(found.type).stop(found)
            self._pools.drop_running(found.name)

    def storage_pool_delete(self, pool: PoolRef) -> None:
        """Remove what ``build`` made; a directory must be empty."""
        with self._pools.locked():
            found = self._by_ref(pool)
            self._require_inactive(found, "still active")
            backend_for(found.current.type).delete(found.current)

    def storage_pool_undefine(self, pool: PoolRef) -> None:
        """Drop the definition of an inactive pool."""
        with self._pools.locked():
            found = self._by_ref(pool)
            self._require_inactive(found, "still active")
            self._pools.drop_running(found.current.name)
            self._pools.drop_definition(found.current.name)

    def storage_pool_refresh(self, pool: PoolRef) -> None:
        """Look again at what is there; a pool that cannot be looked at stops."""
        with self._pools.locked():
            found = self._by_ref(pool)
            if found.running is None:
                raise _not_active(found)
            try:
                self._pools.save_running(backend_for(found.running.type).refresh(found.running))
            except VirtError:
                self._pools.drop_running(found.running.name)
                raise

    def storage_pool_get_info(self, pool: PoolRef) -> PoolInfo:
        """State and sizes; of an inactive pool no sizes."""
        found = self._by_ref(pool)
        if not self._is_active(found):
            return PoolInfo(PoolState.INACTIVE, 0, 0, 0)
        sizes = backend_for(found.current.type).sizes(found.current)
        return PoolInfo(PoolState.RUNNING, sizes.capacity, sizes.allocation, sizes.available)

    def storage_pool_get_xml_desc(self, pool: PoolRef, *, inactive: bool = False) -> str:
        """The pool's document."""
        found = self._by_ref(pool)
        if not self._is_active(found) or (inactive and found.is_redefined):
            return format_pool(found.defined or found.current)
        return format_pool(found.current, backend_for(found.current.type).sizes(found.current))

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
        return sorted(VolumeRef(running.name, name, key) for name, key in backend_for(running.type).volumes(running))

    def storage_vol_lookup_by_name(self, pool: PoolRef, name: str) -> VolumeRef:
        """Find in one pool by name."""
        running = self._require_active(self._by_ref(pool))
        return VolumeRef(running.name, name, self._facts(running, name).path)

    def storage_vol_lookup_by_key(self, key: str) -> VolumeRef:
        """Find in any active pool by key."""
        found = self._search(key)
        if found is None:
            raise _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching key {key}")
        return found

    def storage_vol_lookup_by_path(self, path: str) -> VolumeRef:
        """Find in any active pool by path."""
        clean = clean_path(path)
        found = self._search(clean)
        if found is None:
            shown = "" if clean == path else f" ({clean})"
            raise _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching path '{path}'{shown}")
        return found

    def storage_vol_create_xml(
        self, pool: PoolRef, xml: str, flags: VolumeCreateFlag = VolumeCreateFlag.NONE
    ) -> VolumeRef:
        """Create an empty volume."""
        running = self._require_active(self._by_ref(pool))
        backend = backend_for(running.type)
        volume = parse_volume(xml)
        if backend.volume(running, volume.name) is not None:
            raise _fault(ErrorCode.STORAGE_VOL_EXIST, f"'{volume.name}'")
        backend.create(running, volume, flags)
        return VolumeRef(running.name, volume.name, backend.path(running, volume.name) or "")

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
        backend = backend_for(running.type)
        volume = parse_volume(xml, capacity_optional=True)
        if backend.volume(running, volume.name) is not None:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"storage volume name '{volume.name}' already in use.")
        backend.create_from(running, volume, Source(facts, self._directories()), flags, progress)
        return VolumeRef(running.name, volume.name, backend.path(running, volume.name) or "")

    def storage_vol_delete(self, volume: VolumeRef) -> None:
        """Remove it."""
        backend, _, facts = self._volume(volume)
        backend.remove(facts)

    def storage_vol_wipe_pattern(
        self, volume: VolumeRef, algorithm: WipeAlgorithm = WipeAlgorithm.ZERO, progress: Progress | None = None
    ) -> None:
        """Overwrite its content."""
        backend, _, facts = self._volume(volume)
        backend.wipe(facts, algorithm, progress)

    def storage_vol_resize(
        self, volume: VolumeRef, capacity: int, flags: VolumeResizeFlag = VolumeResizeFlag.NONE
    ) -> None:
        """Change its capacity; shrinking needs ``SHRINK``."""
        backend, pool, facts = self._volume(volume)
        if capacity < 0:
            raise _fault(ErrorCode.INVALID_ARG, f"capacity {capacity} of volume '{volume.name}' is negative")
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
        if flags & VolumeResizeFlag.ALLOCATE and capacity - facts.allocation > backend.sizes(pool).available:
            raise _fault(ErrorCode.OPERATION_FAILED, "Not enough space left in storage pool")
        backend.resize(facts, capacity, flags, self._directories())

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
        backend, _, facts = self._volume(volume)
        return backend.download(facts, offset, length, sparse=sparse)

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
        backend, _, facts = self._volume(volume)
        backend.upload(facts, source, offset, length, trusted=trusted)

    def close(self) -> None:
        """Nothing is held."""

    def _start(self, backend: Backend, pool: PoolDefinition, *, build: bool) -> None:
        if build:
            backend.build(pool)
        backend.start(pool)
        self._pools.save_running(backend.refresh(pool))

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
        return pool.running is not None and backend_for(pool.running.type).is_running(pool.running)

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
            if other.current.name != pool.name and any(
                known is not None and known.type == pool.type and known.path == pool.path for known in other
            ):
                raise _fault(ErrorCode.OPERATION_FAILED, f"Storage source conflict with pool: '{other.current.name}'")

    def _facts(self, pool: PoolDefinition, name: str) -> VolumeFacts:
        facts = backend_for(pool.type).volume(pool, name)
        if facts is None:
            raise _fault(ErrorCode.NO_STORAGE_VOL, f"no storage vol with matching name '{name}'")
        return facts

    def _volume(self, volume: VolumeRef) -> tuple[Backend, PoolDefinition, VolumeFacts]:
        pool = self._require_active(self._find(volume.pool))
        return backend_for(pool.type), pool, self._facts(pool, volume.name)

    def _backing_facts(self, facts: VolumeFacts) -> VolumeFacts | None:
        """The facts of a volume's backing file where that is a volume itself: nothing else is looked at."""
        if facts.backing is None:
            return None
        directory, name = os.path.split(facts.backing.path)
        for pool in self._active():
            if pool.path == directory:
                return backend_for(pool.type).volume(pool, name)
        return None

    def _active(self) -> Iterator[PoolDefinition]:
        for pool in self._pools.all():
            if pool.running is not None and self._is_active(pool):
                yield pool.running

    def _search(self, path: str) -> VolumeRef | None:
        directory, name = os.path.split(path)
        for pool in self._active():
            if pool.path == directory and backend_for(pool.type).volume(pool, name) is not None:
                return VolumeRef(pool.name, name, path)
        return None

    def _directories(self) -> frozenset[str]:
        return frozenset(os.path.realpath(pool.path) for pool in self._active())


def _ref(pool: PoolDefinition) -> PoolRef:
    return PoolRef(pool.name, pool.uuid)


def _not_active(pool: Pool) -> VirtError:
    return _fault(ErrorCode.OPERATION_INVALID, f"storage pool '{pool.current.name}' is not active")


def _check_range(volume: VolumeRef, offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > INT64_MAX:
        raise _fault(
            ErrorCode.INVALID_ARG, f"volume '{volume.name}': offset {offset} with length {length} is no range of bytes"
        )


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.STORAGE)
