"""A connection with what libvirt's ``test:///default`` holds at first, as far as virsh's own logic needs one."""

from __future__ import annotations

from typing import Any, NoReturn

from hostel.drivers.base import (
    DomainInfo,
    DomainRef,
    DomainState,
    NetworkRef,
    PoolInfo,
    PoolRef,
    PoolState,
    StateInfo,
)
from hostel.errors import ErrorCode, VirtError

DOMAIN_UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
POOL_UUID = "dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566"
NETWORK_UUID = "dd8fe884-6c02-601e-7551-cca97df1c5df"


def _missing(code: ErrorCode, message: str) -> NoReturn:
    raise VirtError(code, message)


class FakeHypervisor:
    """One running domain named ``test``."""

    def __init__(self) -> None:
        self.running, self.last_id = True, 1
        self.state = StateInfo(DomainState.RUNNING, 0)

    @property
    def ref(self) -> DomainRef:
        return DomainRef("test", DOMAIN_UUID, self.last_id if self.running else -1)

    def connect_get_hostname(self) -> str:
        return "host"

    def connect_list_all_domains(self) -> list[DomainRef]:
        return [self.ref]

    def domain_lookup_by_id(self, id: int) -> DomainRef:
        return self.ref if self.running and id == self.last_id else _missing(ErrorCode.NO_DOMAIN, "Domain not found")

    def domain_lookup_by_name(self, name: str) -> DomainRef:
        return self.ref if name == "test" else _missing(ErrorCode.NO_DOMAIN, "Domain not found")

    def domain_lookup_by_uuid(self, uuid: str) -> DomainRef:
        return self.ref if uuid == DOMAIN_UUID else _missing(ErrorCode.NO_DOMAIN, "Domain not found")

    def domain_get_state(self, domain: DomainRef) -> StateInfo:
        return self.state

    def domain_get_info(self, domain: DomainRef) -> DomainInfo:
        return DomainInfo(self.state.state, 8388608, 2097152, 2, 0)

    def domain_is_persistent(self, domain: DomainRef) -> bool:
        return True

    def domain_get_autostart(self, domain: DomainRef) -> bool:
        return False

    def domain_set_autostart(self, domain: DomainRef, autostart: bool) -> None: ...

    def domain_get_xml_desc(self, domain: DomainRef, flags: int = 0) -> str:
        return (
            "<domain type='test'><os><type>linux</type></os><devices><disk type='file' device='disk'>"
            "<source file='/guest/diskimage1'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
        )

    def domain_create(self, domain: DomainRef, flags: int = 0) -> DomainRef:
        self.running, self.last_id = True, self.last_id + 1
        self.state = StateInfo(DomainState.RUNNING, 1)
        return self.ref

    def domain_destroy(self, domain: DomainRef, flags: int = 0) -> None:
        self.running, self.state = False, StateInfo(DomainState.SHUTOFF, 2)

    def domain_suspend(self, domain: DomainRef) -> None:
        self.state = StateInfo(DomainState.PAUSED, 1)

    def domain_resume(self, domain: DomainRef) -> None:
        if self.state.state is not DomainState.PAUSED:
            _missing(ErrorCode.INTERNAL_ERROR, "internal error: domain 'test' not paused")
        self.state = StateInfo(DomainState.RUNNING, 5)


class FakeStorage:
    """One active, empty pool named ``default-pool``."""

    ref = PoolRef("default-pool", POOL_UUID)

    def __init__(self) -> None:
        self.active = True

    def connect_list_all_storage_pools(self) -> list[PoolRef]:
        return [self.ref]

    def storage_pool_lookup_by_uuid(self, uuid: str) -> PoolRef:
        return self.ref if uuid == POOL_UUID else _missing(ErrorCode.NO_STORAGE_POOL, "Storage pool not found")

    def storage_pool_lookup_by_name(self, name: str) -> PoolRef:
        message = f"Storage pool not found: no storage pool with matching name '{name}'"
        return self.ref if name == self.ref.name else _missing(ErrorCode.NO_STORAGE_POOL, message)

    def storage_pool_is_active(self, pool: PoolRef) -> bool:
        return self.active

    def storage_pool_is_persistent(self, pool: PoolRef) -> bool:
        return True

    def storage_pool_get_autostart(self, pool: PoolRef) -> bool:
        return False

    def storage_pool_get_info(self, pool: PoolRef) -> PoolInfo:
        return PoolInfo(PoolState.RUNNING if self.active else PoolState.INACTIVE, 100 << 30, 0, 100 << 30)

    def storage_pool_destroy(self, pool: PoolRef) -> None:
        self.active = False

    def storage_pool_create(self, pool: PoolRef, *, build: bool = False) -> None:
        self.active = True

    def storage_pool_list_all_volumes(self, pool: PoolRef) -> list[Any]:
        return []

    def storage_vol_lookup_by_name(self, pool: PoolRef, name: str) -> NoReturn:
        _missing(ErrorCode.NO_STORAGE_VOL, "Storage volume not found")

    def storage_vol_lookup_by_key(self, key: str) -> NoReturn:
        _missing(ErrorCode.NO_STORAGE_VOL, "Storage volume not found")

    def storage_vol_lookup_by_path(self, path: str) -> NoReturn:
        _missing(ErrorCode.NO_STORAGE_VOL, f"Storage volume not found: no storage vol with matching path '{path}'")


class FakeNetwork:
    """One active network named ``default``."""

    ref = NetworkRef("default", NETWORK_UUID)

    def network_lookup_by_name(self, name: str) -> NetworkRef:
        message = f"Network not found: no network with matching name '{name}'"
        return self.ref if name == self.ref.name else _missing(ErrorCode.NO_NETWORK, message)

    def network_lookup_by_uuid(self, uuid: str) -> NetworkRef:
        return self.ref if uuid == NETWORK_UUID else _missing(ErrorCode.NO_NETWORK, "Network not found")

    def network_create(self, network: NetworkRef) -> None: ...

    def network_destroy(self, network: NetworkRef) -> None: ...

    def network_undefine(self, network: NetworkRef) -> None: ...


class FakeConnection:
    """The three together."""

    def __init__(self, uri: str = "test:///default") -> None:
        self.uri = uri
        self.hypervisor: Any = FakeHypervisor()
        self.storage: Any = FakeStorage()
        self.network: Any = FakeNetwork()

    def close(self) -> None: ...
