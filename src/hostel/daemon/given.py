"""What libvirt's functions refuse before any driver is asked."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Final

from hostel.daemon.access import api_name
from hostel.drivers.base.backup import CheckpointCreateFlag, CheckpointDeleteFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.dumping import DumpFlag
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotDeleteFlag, SnapshotRevertFlag
from hostel.drivers.fault import fault
from hostel.drivers.together import check_together
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.wire.rpc.procedure import Procedure

# Procedures, and which of their arguments must not be 0.
_NONZERO: Final = {
    "domain_set_max_memory": 1,
    "domain_set_memory": 1,
    "domain_set_memory_flags": 1,
    "domain_set_vcpus": 1,
    "domain_set_vcpus_flags": 1,
    "domain_send_process_signal": 1,
    "domain_del_iothread": 1,
}
# Which must have something in them.
_FILLED: Final = {"domain_set_iothread_params": 2}
# Flags that are held against each other, though the driver may not know all of them.
_TOGETHER: Final[dict[str, type[enum.IntFlag]]] = {
    "domain_snapshot_create_xml": SnapshotCreateFlag,
    "domain_revert_to_snapshot": SnapshotRevertFlag,
    "domain_snapshot_delete": SnapshotDeleteFlag,
    "domain_checkpoint_create_xml": CheckpointCreateFlag,
    "domain_checkpoint_delete": CheckpointDeleteFlag,
    "domain_save_flags": SaveFlag,
    "domain_save_params": SaveFlag,
    "domain_restore_flags": SaveFlag,
    "domain_restore_params": SaveFlag,
    "domain_save_image_define_xml": SaveFlag,
    "domain_managed_save": SaveFlag,
    "domain_managed_save_define_xml": SaveFlag,
    "domain_core_dump": DumpFlag,
    "domain_core_dump_with_format": DumpFlag,
    # Those that only look; what changes something may change both documents.
    "domain_get_memory_parameters": Affect,
    "domain_get_blkio_parameters": Affect,
    "domain_get_scheduler_parameters_flags": Affect,
    "domain_get_block_io_tune": Affect,
    "domain_get_vcpus_flags": Affect,
    "domain_get_vcpu_pin_info": Affect,
    "domain_get_emulator_pin_info": Affect,
    "domain_get_iothread_info": Affect,
    "domain_get_metadata": Affect,
}
# Which must be a text, and which one that is not empty.
_TEXT: Final = {
    "domain_set_user_password": (1, 2),
}
_NONEMPTY: Final = {
    "domain_get_block_info": 1,
    "domain_rename": 1,
}
_NAMES: Final = {("domain_get_block_info", "path"): "disk"}  # where libvirt's function calls it something else
_MEMORY: Final = ("domain_set_max_memory", "domain_set_memory", "domain_set_memory_flags")
_MOST_MEMORY: Final = ((1 << 63) - 1) // 1024  # KiB


def check_given(procedure: Procedure, arguments: Sequence[Any]) -> None:
    """Let a call with such arguments pass, or not.

    Raises:
        VirtError: ``INVALID_ARG``; ``OVERFLOW``: that much memory nothing has.
    """
    name = procedure.name
    place = _NONZERO.get(name)
    if place is not None and not arguments[place]:
        raise _wrong(procedure, place, "{} must not be zero")
    place = _FILLED.get(name)
    if place is not None and not arguments[place]:
        raise _wrong(procedure, place, "{} must not be NULL")
    if name == "domain_set_vcpus_flags":
        _check_vcpu_flags(arguments[2])
    if name in _TOGETHER:
        check_together(_TOGETHER[name](arguments[-1]))
    if name == "domain_get_block_io_tune" and arguments[2] and arguments[1] is None:  # who asks how many needs none
        raise _wrong(procedure, 1, "{} must not be NULL")
    place = _NONEMPTY.get(name)
    for needed in _TEXT.get(name, () if place is None else (place,)):
        if arguments[needed] is None:
            raise _wrong(procedure, needed, "{} must not be NULL")
    if place is not None and not arguments[place]:
        raise _wrong(procedure, place, "string {} must not be empty")
    if name in _MEMORY and arguments[1] >= _MOST_MEMORY:
        raise fault(ErrorCode.OVERFLOW, f"input too large: {arguments[1]}", ErrorDomain.DOMAIN)
    if name == "domain_lookup_by_id" and arguments[0] < 0:
        raise _wrong(procedure, 0, "{} must be zero or greater")


def _check_vcpu_flags(flags: int) -> None:
    what = ""
    if flags & VcpuFlag.MAXIMUM and not flags & Affect.CONFIG:
        what = "Flag 'VIR_DOMAIN_AFFECT_CONFIG' is required by flag 'VIR_DOMAIN_VCPU_MAXIMUM'"
    elif flags & VcpuFlag.GUEST and flags & Affect.CONFIG:
        what = "Flags 'VIR_DOMAIN_VCPU_GUEST' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive"
    if what:
        raise VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.DOMAIN)


def _wrong(procedure: Procedure, place: int, pattern: str) -> VirtError:
    field = procedure.arguments.fields[place].name
    named = _NAMES.get((procedure.name, field), field)
    what = pattern.format(f"{named} in {api_name(procedure.name)}")
    return VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.DOMAIN)
