"""Between libvirt's procedures and the drivers' methods: one table, read by the daemon and by the remote driver.

A procedure's arguments and a method's are the same in the same order, but for what a :class:`Adapter` says: references
in place of the wire's structures, truth values in place of numbers, and flags as the method takes them.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from hostel.codec.xdr import Field, split_type
from hostel.drivers.base import (
    DestroyFlag,
    DomainInfo,
    DomainRef,
    DomainState,
    DomainXmlFlag,
    NetworkRef,
    PoolInfo,
    PoolRef,
    PoolState,
    SecurityLabel,
    SecurityModel,
    ShutdownFlag,
    StartFlag,
    StateInfo,
    UndefineFlag,
    VolumeCreateFlag,
    VolumeInfo,
    VolumeRef,
    VolumeResizeFlag,
    VolumeType,
    WipeAlgorithm,
)
from hostel.drivers.base.agent import HostnameSource, SshKeysFlag
from hostel.drivers.base.backup import (
    AbortFlag,
    BackupBeginFlag,
    CheckpointCreateFlag,
    CheckpointDeleteFlag,
    CheckpointRef,
    CheckpointXmlFlag,
)
from hostel.drivers.base.block import (
    BlockCommitFlag,
    BlockInfo,
    BlockJobAbortFlag,
    BlockRebaseFlag,
    BlockResizeFlag,
)
from hostel.drivers.base.capabilities import BaselineFlag, CompareFlag
from hostel.drivers.base.counting import ControlInfo
from hostel.drivers.base.device import DeviceModify, InterfaceStats
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.dumping import DirtyRateMode, DumpFlag
from hostel.drivers.base.host import NodeInfo
from hostel.drivers.base.interface import InterfaceRef
from hostel.drivers.base.machine import MemoryFlag, VcpuFlag
from hostel.drivers.base.messages import MessageFlag
from hostel.drivers.base.network import NetworkPortRef, PortCreateFlag
from hostel.drivers.base.nodedev import NodeDeviceRef
from hostel.drivers.base.nwfilter import NwfilterBindingRef, NwfilterRef
from hostel.drivers.base.peeking import PeekFlag
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.base.secret import SecretRef, SecretUsageType
from hostel.drivers.base.snapshot import (
    SnapshotCreateFlag,
    SnapshotDeleteFlag,
    SnapshotListFlag,
    SnapshotRef,
    SnapshotRevertFlag,
)
from hostel.drivers.base.tuning import (
    CpuStats,
    IoThreadInfo,
    IoThreads,
    PinInfo,
    SchedulerType,
    VcpuInfo,
    Vcpus,
)
from hostel.drivers.fault import fault
from hostel.drivers.tuning.parameter import TYPES
from hostel.errors import ErrorCode, VirtError

# What the table's integers mean that are truth values.
_TRUTHS: Final = frozenset(
    {"autostart", "active", "persistent", "updated", "secure", "enforcing", "result", "current", "metadata"}
)

Options = Mapping[int, Mapping[str, bool]]
Flags = type[enum.IntFlag] | tuple[type[enum.IntFlag], ...] | Options | int


class Adapter(NamedTuple):
    """How a method answers a procedure.

    Attributes:
        driver: which of the connection's drivers.
        method: its name; the procedure's, where the table does not say.
        flags: what the procedure's flags become: the method's last argument, of a class, or one for each class; truth
            values by name, for each bit; or nothing, where the number has the bits that may be set without any
            effect.
        make: makes the method's result of the wire's members, where these are several.
        members: the result's members in the wire's order, where that is another than its own.
        refused: flags of the class that this procedure does not take.
        counted: the caller says first how many parameters it wants, where 0 asks how many there are.
    """

    driver: str
    method: str
    flags: Flags = 0
    make: Callable[..., Any] | None = None
    members: tuple[str, ...] = ()
    counted: bool = False
    refused: int = 0


def _domain(method: str = "", flags: Flags = 0, make: Callable[..., Any] | None = None) -> Adapter:
    return Adapter("hypervisor", method, flags, make)


def _network(method: str = "", flags: Flags = 0) -> Adapter:
    return Adapter("network", method, flags)


def _secret(method: str = "") -> Adapter:
    return Adapter("secret", method)


def _node_device(method: str = "", flags: Flags = 0) -> Adapter:
    return Adapter("node_device", method, flags)


def _nwfilter(method: str = "", flags: Flags = 0) -> Adapter:
    return Adapter("nwfilter", method, flags)


def _interface(flags: Flags = 0) -> Adapter:
    return Adapter("interface", "", flags)


def _host(make: Callable[..., Any] | None = None) -> Adapter:
    return Adapter("host", "", make=make)


def _storage(method: str = "", flags: Flags = 0, make: Callable[..., Any] | None = None) -> Adapter:
    return Adapter("storage", method, flags, make)


_UUIDS: Final = 8192  # that are remembered in both forms: lists are long, and converting is most of their cost
_TEXT: Final = 7  # VIR_TYPED_PARAM_STRING
_BUILDING: Final[Options] = {
    1: {"build": True},
    2: {"build": True, "overwrite": True},
    4: {"build": True, "overwrite": False},
}

# Where several procedures are one method, the one that can say more comes last.
_ROWS: Final[dict[str, Adapter]] = {
    "connect_get_type": _domain(),
    "connect_get_version": _domain(),
    "connect_get_hostname": _domain(),
    "connect_get_capabilities": _domain(),
    "connect_get_domain_capabilities": _domain(),
    "connect_compare_cpu": _domain(flags=CompareFlag),
    "connect_baseline_cpu": _domain(flags=BaselineFlag),
    "connect_compare_hypervisor_cpu": _domain(flags=CompareFlag),
    "connect_baseline_hypervisor_cpu": _domain(flags=BaselineFlag),
    "connect_domain_xml_from_native": _domain(),
    "connect_domain_xml_to_native": _domain(),
    "node_get_security_model": _domain(make=lambda model, doi: SecurityModel(_text(model), _text(doi))),
    "connect_get_lib_version": _host(),
    "node_get_info": _host(make=lambda model, *rest: NodeInfo(_text(model), *rest)),
    "node_get_free_memory": _host(),
    "node_get_free_pages": _host(),
    "node_alloc_pages": Adapter("host", "", {1: {"exactly": True}}),
    "node_get_memory_parameters": Adapter("host", "", counted=True),
    "node_set_memory_parameters": _host(),
    "node_suspend_for_duration": _host(),
    "connect_get_sysinfo": _domain(),
    "domain_get_launch_security_info": _domain(),
    "domain_set_launch_security_state": _domain(),
    "node_get_cells_free_memory": _host(),
    "connect_get_max_vcpus": _host(),
    "domain_lookup_by_name": _domain(),
    "domain_lookup_by_uuid": _domain(),
    "domain_lookup_by_id": _domain(),
    "domain_define_xml": _domain(),
    "domain_define_xml_flags": _domain("domain_define_xml"),
    "domain_create_xml": _domain(flags=StartFlag),
    "domain_create": _domain(),
    "domain_create_with_flags": _domain("domain_create", StartFlag),
    "domain_shutdown": _domain(),
    "domain_shutdown_flags": _domain("domain_shutdown", ShutdownFlag),
    "domain_reboot": _domain(flags=ShutdownFlag),
    "domain_reset": _domain(),
    "domain_suspend": _domain(),
    "domain_resume": _domain(),
    "domain_destroy": _domain(),
    "domain_destroy_flags": _domain("domain_destroy", DestroyFlag),
    "domain_undefine": _domain(),
    "domain_undefine_flags": _domain("domain_undefine", UndefineFlag),
    "domain_get_xml_desc": _domain(flags=DomainXmlFlag),
    "domain_get_os_type": _domain(),
    "domain_get_security_label": _domain(make=lambda label, enforcing: SecurityLabel(_text(label), bool(enforcing))),
    "domain_get_info": _domain(make=lambda state, *rest: DomainInfo(DomainState(state), *rest)),
    "domain_get_state": _domain(make=lambda state, reason: StateInfo(DomainState(state), reason)),
    "domain_is_persistent": _domain(),
    "domain_get_autostart": _domain(),
    "domain_set_autostart": _domain(),
    "domain_save": _domain("domain_save_flags"),
    "domain_save_flags": _domain(flags=SaveFlag)._replace(refused=SaveFlag.RESET_NVRAM),
    "domain_restore": _domain("domain_restore_flags"),
    "domain_restore_flags": _domain(flags=SaveFlag),
    "domain_save_image_get_xml_desc": _domain(flags=DomainXmlFlag),
    "domain_save_image_define_xml": _domain(flags=SaveFlag),
    "domain_managed_save": _domain(flags=SaveFlag)._replace(refused=SaveFlag.RESET_NVRAM),
    "domain_has_managed_save_image": _domain(),
    "domain_managed_save_remove": _domain(),
    "domain_managed_save_get_xml_desc": _domain(flags=DomainXmlFlag),
    "domain_managed_save_define_xml": _domain(flags=SaveFlag),
    "domain_snapshot_create_xml": _domain(flags=SnapshotCreateFlag),
    "domain_snapshot_get_xml_desc": _domain(flags=DomainXmlFlag),
    "domain_snapshot_num": _domain(flags=SnapshotListFlag),
    "domain_snapshot_lookup_by_name": _domain(),
    "domain_has_current_snapshot": _domain(),
    "domain_snapshot_current": _domain(),
    "domain_snapshot_get_parent": _domain(),
    "domain_snapshot_is_current": _domain(),
    "domain_snapshot_has_metadata": _domain(),
    "domain_revert_to_snapshot": _domain(flags=SnapshotRevertFlag),
    "domain_snapshot_delete": _domain(flags=SnapshotDeleteFlag),
    "domain_checkpoint_create_xml": _domain(flags=CheckpointCreateFlag),
    "domain_checkpoint_get_xml_desc": _domain(flags=CheckpointXmlFlag),
    "domain_checkpoint_lookup_by_name": _domain(),
    "domain_checkpoint_get_parent": _domain(),
    "domain_checkpoint_delete": _domain(flags=CheckpointDeleteFlag),
    "domain_get_metadata": _domain(flags=Affect),
    "domain_set_metadata": _domain(flags=Affect),
    "domain_interface_stats": _domain(make=InterfaceStats),
    "domain_backup_begin": _domain(flags=BackupBeginFlag),
    "domain_backup_get_xml_desc": _domain(),
    "domain_abort_job_flags": _domain("domain_abort_job", AbortFlag),
    "domain_abort_job": _domain(),
    "domain_set_memory_flags": _domain(flags=(Affect, MemoryFlag)),
    "domain_get_vcpus_flags": _domain(flags=(Affect, VcpuFlag)),
    "domain_get_control_info": _domain(make=ControlInfo),
    "domain_set_vcpu": _domain(flags=Affect),
    "domain_set_vcpus_flags": _domain(flags=(Affect, VcpuFlag)),
    "domain_core_dump_with_format": _domain(flags=DumpFlag),
    "domain_start_dirty_rate_calc": _domain(flags=DirtyRateMode),
    "domain_set_lifecycle_action": _domain(flags=Affect),
    "domain_send_process_signal": _domain(),
    "domain_memory_peek": _domain(flags=PeekFlag),
    "domain_block_peek": _domain(),
    "domain_pin_vcpu": _domain(),
    "domain_pin_vcpu_flags": _domain(flags=Affect),
    "domain_get_vcpu_pin_info": _domain(flags=Affect, make=PinInfo),
    "domain_get_vcpus": _domain(make=lambda info, maps: Vcpus([VcpuInfo(*each) for each in info], maps)),
    "domain_pin_emulator": _domain(flags=Affect),
    "domain_get_emulator_pin_info": _domain(flags=Affect, make=PinInfo),
    "domain_get_cpu_stats": _domain(
        make=lambda params, count: CpuStats([(name, value) for name, (_, value) in params], count)
    ),
    "domain_get_iothread_info": _domain(
        flags=Affect, make=lambda info, count: IoThreads([IoThreadInfo(*each) for each in info], count)
    ),
    "domain_pin_iothread": _domain(flags=Affect),
    "domain_add_iothread": _domain(flags=Affect),
    "domain_del_iothread": _domain(flags=Affect),
    "domain_set_iothread_params": _domain(flags=Affect),
    "domain_get_scheduler_type": _domain(make=SchedulerType),
    "domain_get_scheduler_parameters": _domain("domain_get_scheduler_parameters_flags")._replace(counted=True),
    "domain_get_scheduler_parameters_flags": _domain(flags=Affect)._replace(counted=True),
    "domain_set_scheduler_parameters": _domain("domain_set_scheduler_parameters_flags"),
    "domain_set_scheduler_parameters_flags": _domain(flags=Affect),
    "domain_get_memory_parameters": _domain(flags=Affect)._replace(counted=True),
    "domain_set_memory_parameters": _domain(flags=Affect),
    "domain_get_blkio_parameters": _domain(flags=Affect)._replace(counted=True),
    "domain_set_blkio_parameters": _domain(flags=Affect),
    "domain_get_numa_parameters": _domain(flags=Affect)._replace(counted=True),
    "domain_set_numa_parameters": _domain(flags=Affect),
    "domain_get_interface_parameters": _domain(flags=Affect)._replace(counted=True),
    "domain_set_interface_parameters": _domain(flags=Affect),
    "domain_get_perf_events": _domain(flags=Affect),
    "domain_set_perf_events": _domain(flags=Affect),
    "domain_set_memory_stats_period": _domain(flags=Affect),
    "domain_inject_nmi": _domain(),
    "domain_send_key": _domain(),
    "domain_fsfreeze": _domain("domain_fs_freeze"),
    "domain_fsthaw": _domain("domain_fs_thaw"),
    "domain_fstrim": _domain("domain_fs_trim"),
    "domain_get_messages": _domain(flags=MessageFlag),
    "domain_get_hostname": _domain(flags=HostnameSource),
    "domain_get_guest_vcpus": _domain(),
    "domain_set_guest_vcpus": _domain(),
    "domain_get_time": _domain(make=lambda seconds, nseconds: (seconds, nseconds)),
    "domain_set_time": _domain(flags={1: {"sync": True}}),
    "domain_authorized_ssh_keys_get": _domain(),
    "domain_authorized_ssh_keys_set": _domain(flags=SshKeysFlag),
    "domain_set_user_password": _domain(flags={1: {"encrypted": True}}),
    "domain_agent_set_response_timeout": _domain(),
    "domain_pm_suspend_for_duration": _domain(),
    "domain_pm_wakeup": _domain(),
    "domain_attach_device_flags": _domain(flags=Affect),
    "domain_detach_device_flags": _domain(flags=Affect),
    "domain_detach_device_alias": _domain(flags=Affect),
    "domain_update_device_flags": _domain(flags=(Affect, DeviceModify)),
    "domain_block_resize": _domain(flags=BlockResizeFlag),
    "domain_block_stats_flags": _domain()._replace(counted=True),
    "domain_get_block_info": _domain(
        make=lambda allocation, capacity, physical: BlockInfo(capacity, allocation, physical)
    )._replace(members=("allocation", "capacity", "physical")),
    "domain_get_block_io_tune": _domain(flags=Affect)._replace(counted=True),
    "domain_set_block_io_tune": _domain(flags=Affect),
    "domain_set_block_threshold": _domain(),
    "domain_block_rebase": _domain(flags=BlockRebaseFlag),
    "domain_block_commit": _domain(flags=BlockCommitFlag),
    "domain_block_job_abort": _domain(flags=BlockJobAbortFlag),
    "network_lookup_by_name": _network(),
    "network_lookup_by_uuid": _network(),
    "network_define_xml": _network(),
    "network_define_xml_flags": _network("network_define_xml"),
    "network_create_xml": _network(),
    "network_create_xml_flags": _network("network_create_xml"),
    "network_update": _network(flags=Affect),
    "network_undefine": _network(),
    "network_create": _network(),
    "network_destroy": _network(),
    "network_is_active": _network(),
    "network_is_persistent": _network(),
    "network_get_autostart": _network(),
    "network_set_autostart": _network(),
    "network_get_xml_desc": _network(flags={1: {"inactive": True}}),
    "network_get_bridge_name": _network(),
    "network_port_lookup_by_uuid": _network(),
    "network_port_create_xml": _network(flags=PortCreateFlag),
    "network_port_get_parameters": _network()._replace(counted=True),
    "network_port_set_parameters": _network(),
    "network_port_get_xml_desc": _network(),
    "network_port_delete": _network(),
    "node_device_lookup_by_name": _node_device(),
    "node_device_get_xml_desc": _node_device(),
    "node_device_get_parent": _node_device(),
    "node_device_is_active": _node_device(),
    "node_device_is_persistent": _node_device(),
    "node_device_get_autostart": _node_device(),
    "node_device_set_autostart": _node_device(),
    "node_device_lookup_scsi_host_by_wwn": _node_device(),
    "node_device_create_xml": _node_device(),
    "node_device_define_xml": _node_device(),
    "node_device_undefine": _node_device(),
    "node_device_create": _node_device(),
    "node_device_destroy": _node_device(),
    "node_device_dettach": _node_device("node_device_detach_flags"),
    "node_device_detach_flags": _node_device(),
    "node_device_re_attach": _node_device(),
    "node_device_reset": _node_device(),
    "interface_lookup_by_name": _interface(),
    "interface_lookup_by_mac_string": _interface(),
    "interface_is_active": _interface(),
    "interface_get_xml_desc": _interface({1: {"inactive": True}}),
    "interface_define_xml": _interface(),
    "interface_undefine": _interface(),
    "interface_create": _interface(),
    "interface_destroy": _interface(),
    "interface_change_begin": _interface(),
    "interface_change_commit": _interface(),
    "interface_change_rollback": _interface(),
    "nwfilter_lookup_by_name": _nwfilter(),
    "nwfilter_lookup_by_uuid": _nwfilter(),
    "nwfilter_get_xml_desc": _nwfilter(),
    "nwfilter_define_xml_flags": _nwfilter("nwfilter_define_xml"),
    "nwfilter_define_xml": _nwfilter(),
    "nwfilter_undefine": _nwfilter(),
    "nwfilter_binding_lookup_by_port_dev": _nwfilter(),
    "nwfilter_binding_get_xml_desc": _nwfilter(),
    "nwfilter_binding_create_xml": _nwfilter(),
    "nwfilter_binding_delete": _nwfilter(),
    "secret_lookup_by_uuid": _secret(),
    "secret_lookup_by_usage": _secret(),
    "secret_define_xml": _secret(),
    "secret_undefine": _secret(),
    "secret_get_xml_desc": _secret(),
    "secret_set_value": _secret(),
    "secret_get_value": _secret(),
    "storage_pool_lookup_by_name": _storage(),
    "storage_pool_lookup_by_uuid": _storage(),
    "storage_pool_lookup_by_volume": _storage(),
    "storage_pool_define_xml": _storage(),
    "connect_find_storage_pool_sources": _storage(),
    "connect_get_storage_pool_capabilities": _storage(),
    "storage_pool_create_xml": _storage(flags=_BUILDING),
    "storage_pool_build": _storage(flags={8: {"overwrite": True}, 4: {"overwrite": False}}),
    "storage_pool_create": _storage(flags=_BUILDING),
    "storage_pool_destroy": _storage(),
    "storage_pool_delete": _storage(),
    "storage_pool_undefine": _storage(),
    "storage_pool_refresh": _storage(),
    "storage_pool_get_info": _storage(make=lambda state, *sizes: PoolInfo(PoolState(state), *sizes)),
    "storage_pool_get_xml_desc": _storage(flags={1: {"inactive": True}}),
    "storage_pool_is_active": _storage(),
    "storage_pool_is_persistent": _storage(),
    "storage_pool_get_autostart": _storage(),
    "storage_pool_set_autostart": _storage(),
    "storage_vol_lookup_by_name": _storage(),
    "storage_vol_lookup_by_key": _storage(),
    "storage_vol_lookup_by_path": _storage(),
    "storage_vol_create_xml": _storage(flags=VolumeCreateFlag),
    "storage_vol_create_xml_from": _storage(flags=VolumeCreateFlag),
    "storage_vol_delete": _storage(flags={2: {"snapshots": True}}),
    "storage_vol_wipe": _storage("storage_vol_wipe_pattern"),
    "storage_vol_wipe_pattern": _storage(),
    "storage_vol_resize": _storage(flags=VolumeResizeFlag),
    "storage_vol_get_info": _storage(make=lambda kind, *sizes: VolumeInfo(VolumeType(kind), *sizes)),
    "storage_vol_get_info_flags": _storage(
        "storage_vol_get_info", {1: {"physical": True}}, lambda kind, *sizes: VolumeInfo(VolumeType(kind), *sizes)
    ),
    "storage_vol_get_xml_desc": _storage(),
    "storage_vol_get_path": _storage(),
}
ADAPTERS: Final = {name: adapter._replace(method=adapter.method or name) for name, adapter in _ROWS.items()}
# Who calls a method: the procedure that can say the most.
PROCEDURE_OF: Final = {adapter.method: name for name, adapter in ADAPTERS.items()}


@functools.lru_cache(maxsize=_UUIDS)
def uuid_text(raw: bytes) -> str:
    """A UUID as it is written."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@functools.lru_cache(maxsize=_UUIDS)
def uuid_bytes(text: str) -> bytes:
    """A UUID as it goes over the wire.

    Raises:
        VirtError: it is none.
    """
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise VirtError(ErrorCode.INVALID_ARG, f"'{text}' is no valid UUID")
    return raw


def _text(raw: bytes) -> str:
    """An array of characters that C ends with a NUL."""
    return raw.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _parameters(wire: Sequence[tuple[str, tuple[int, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (_, value) in wire:
        if name in found:
            raise fault(ErrorCode.INVALID_ARG, f"parameter '{name}' occurs multiple times")
        found[name] = value
    return found


_FROM_WIRE: Final[dict[str, Callable[[Any], Any]]] = {
    "domain": lambda wire: DomainRef(wire[0], uuid_text(wire[1]), wire[2]),
    "network": lambda wire: NetworkRef(wire[0], uuid_text(wire[1])),
    "network_port": lambda wire: NetworkPortRef(_FROM_WIRE["network"](wire[0]), uuid_text(wire[1])),
    "pool": lambda wire: PoolRef(wire[0], uuid_text(wire[1])),
    "volume": lambda wire: VolumeRef(*wire),
    "node_device": lambda wire: NodeDeviceRef(*wire),
    "checkpoint": lambda wire: CheckpointRef(wire[0], _FROM_WIRE["domain"](wire[1])),
    "snapshot": lambda wire: SnapshotRef(wire[0], _FROM_WIRE["domain"](wire[1])),
    "interface": lambda wire: InterfaceRef(*wire),
    "nwfilter": lambda wire: NwfilterRef(wire[0], uuid_text(wire[1])),
    "nwfilter_binding": lambda wire: NwfilterBindingRef(*wire),
    "secret": lambda wire: SecretRef(uuid_text(wire[0]), _usage_type(wire[1]), wire[2]),
    "uuid": uuid_text,
    "param": _parameters,
}
_TO_WIRE: Final[dict[str, Callable[[Any], Any]]] = {
    "domain": lambda ref: (ref[0], uuid_bytes(ref[1]), ref[2]),
    "network": lambda ref: (ref[0], uuid_bytes(ref[1])),
    "network_port": lambda ref: (_TO_WIRE["network"](ref[0]), uuid_bytes(ref[1])),
    "pool": lambda ref: (ref[0], uuid_bytes(ref[1])),
    "nwfilter": lambda ref: (ref[0], uuid_bytes(ref[1])),
    "checkpoint": lambda ref: (ref[0], _TO_WIRE["domain"](ref[1])),
    "snapshot": lambda ref: (ref[0], _TO_WIRE["domain"](ref[1])),
    "secret": lambda ref: (uuid_bytes(ref[0]), int(ref[1]), ref[2]),
    "uuid": uuid_bytes,
    "param": lambda values: [
        (name, typed_value(value, TYPES.get(name)))
        for name, value in (values.items() if isinstance(values, Mapping) else values)
    ],
    "chars": lambda text: text.encode("utf-8", "surrogateescape") + b"\0",
}


def typed_value(value: Any, kind: int | None = None) -> tuple[int, Any]:
    """A value with libvirt's number for its type: the one that is known, or what the value looks like."""
    if kind is not None and isinstance(value, str) == (kind == _TEXT):
        return kind, value
    if isinstance(value, bool):
        return 6, int(value)
    if isinstance(value, int):
        return (4, value) if value >= 0 else (3, value)
    return (5, value) if isinstance(value, float) else (7, str(value))


def from_wire(field: Field) -> Callable[[Any], Any] | None:
    """What makes a driver's value of the wire's; None where they are the same."""
    if field.type == "i32" and field.name in _TRUTHS:
        return bool
    if field.name == "algorithm":
        return _wipe_algorithm
    return _FROM_WIRE.get(split_type(field.type)[0])


def to_wire(field: Field) -> Callable[[Any], Any] | None:
    """What makes the wire's value of a driver's; None where they are the same."""
    return _TO_WIRE.get(split_type(field.type)[0])


def _usage_type(number: int) -> SecretUsageType:
    try:
        return SecretUsageType(number)
    except ValueError:
        raise fault(ErrorCode.INVALID_ARG, f"secret usage type {number} is not known") from None


def _wipe_algorithm(number: int) -> WipeAlgorithm:
    try:
        return WipeAlgorithm(number)
    except ValueError:
        raise fault(ErrorCode.INVALID_ARG, f"wiping algorithm {number} not supported") from None


def check_flags(flags: int, allowed: int, what: str) -> None:
    """Refuse flags that are not known.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    unknown = int(flags) & ~int(allowed)  # of a member of an enumeration ~ has only the bits of that enumeration
    if unknown:
        raise VirtError(ErrorCode.INVALID_ARG, f"unsupported flags ({unknown:#x}) in function {what}")
