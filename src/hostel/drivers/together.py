"""Flags that need or exclude each other, which libvirt's functions refuse before any driver is asked."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from hostel.drivers.base.backup import CheckpointCreateFlag, CheckpointDeleteFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.dumping import DumpFlag
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotDeleteFlag, SnapshotRevertFlag
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_Pairs = tuple[tuple[enum.IntFlag, enum.IntFlag], ...]


class _Rules(NamedTuple):
    """What libvirt says of flags of one kind.

    Attributes:
        prefix: what stands before their names.
        domain: of the errors.
        needs: flags, and what each of them needs.
        excludes: pairs that are never given together.
    """

    prefix: str
    domain: ErrorDomain
    needs: _Pairs = ()
    excludes: _Pairs = ()


_RULES: Final[dict[type[enum.IntFlag], _Rules]] = {
    SnapshotCreateFlag: _Rules(
        "VIR_DOMAIN_SNAPSHOT_CREATE_",
        ErrorDomain.DOMAIN_SNAPSHOT,
        ((SnapshotCreateFlag.CURRENT, SnapshotCreateFlag.REDEFINE),),
        (
            (SnapshotCreateFlag.REDEFINE, SnapshotCreateFlag.NO_METADATA),
            (SnapshotCreateFlag.REDEFINE, SnapshotCreateFlag.HALT),
        ),
    ),
    SnapshotRevertFlag: _Rules(
        "VIR_DOMAIN_SNAPSHOT_REVERT_",
        ErrorDomain.DOMAIN_SNAPSHOT,
        excludes=((SnapshotRevertFlag.RUNNING, SnapshotRevertFlag.PAUSED),),
    ),
    SnapshotDeleteFlag: _Rules(
        "VIR_DOMAIN_SNAPSHOT_DELETE_",
        ErrorDomain.DOMAIN_SNAPSHOT,
        excludes=((SnapshotDeleteFlag.CHILDREN, SnapshotDeleteFlag.CHILDREN_ONLY),),
    ),
    CheckpointCreateFlag: _Rules(
        "VIR_DOMAIN_CHECKPOINT_CREATE_",
        ErrorDomain.DOMAIN_CHECKPOINT,
        ((CheckpointCreateFlag.REDEFINE_VALIDATE, CheckpointCreateFlag.REDEFINE),),
        ((CheckpointCreateFlag.REDEFINE, CheckpointCreateFlag.QUIESCE),),
    ),
    SaveFlag: _Rules("VIR_DOMAIN_SAVE_", ErrorDomain.DOMAIN, excludes=((SaveFlag.RUNNING, SaveFlag.PAUSED),)),
    DumpFlag: _Rules(
        "VIR_DUMP_",
        ErrorDomain.DOMAIN,
        excludes=(
            (DumpFlag.CRASH, DumpFlag.LIVE),
            (DumpFlag.CRASH, DumpFlag.RESET),
            (DumpFlag.LIVE, DumpFlag.RESET),
        ),
    ),
    Affect: _Rules("VIR_DOMAIN_AFFECT_", ErrorDomain.DOMAIN, excludes=((Affect.LIVE, Affect.CONFIG),)),
    CheckpointDeleteFlag: _Rules(
        "VIR_DOMAIN_CHECKPOINT_DELETE_",
        ErrorDomain.DOMAIN_CHECKPOINT,
        excludes=((CheckpointDeleteFlag.CHILDREN, CheckpointDeleteFlag.CHILDREN_ONLY),),
    ),
}


def check_together(flags: enum.IntFlag) -> None:
    """Refuse flags that do not go together.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    rules = _RULES[type(flags)]
    for one, needed in rules.needs:
        if flags & one and not flags & needed:
            named = f"'{rules.prefix}{needed.name}' is required by flag '{rules.prefix}{one.name}'"
            raise VirtError(ErrorCode.INVALID_ARG, f"Flag {named}", domain=rules.domain)
    for one, other in rules.excludes:
        if flags & one and flags & other:
            named = f"'{rules.prefix}{one.name}' and '{rules.prefix}{other.name}'"
            raise VirtError(ErrorCode.INVALID_ARG, f"Flags {named} are mutually exclusive", domain=rules.domain)
