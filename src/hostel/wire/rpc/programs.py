"""The programs that libvirt's daemons answer."""

from __future__ import annotations

from typing import Final

from hostel.codec.xdr import Codec
from hostel.wire.rpc.procedure import Procedure, Program
from hostel.wire.rpc.table import (
    connect,
    domain,
    event,
    filtering,
    hypervisor,
    interface,
    locking,
    logging,
    migration,
    network,
    node,
    secret,
    snapshot,
    storage,
)
from hostel.wire.rpc.table.types import TYPES

REMOTE: Final = Program(
    "remote",
    0x20008086,
    TYPES,
    *(
        module.ROWS
        for module in (
            connect, domain, event, filtering, interface, migration, network, node, secret, snapshot, storage,
        )
    ),
)  # fmt: skip
QEMU: Final = Program("qemu", 0x20008087, TYPES, hypervisor.QEMU_ROWS)
LXC: Final = Program("lxc", 0x00068000, TYPES, hypervisor.LXC_ROWS)
LOCK_SPACE: Final = Program(
    "lock_space", 0x0EA7BEEF, locking.TYPES, locking.ROWS
)  # virtlockd's, no daemon's of machines
LOG_MANAGER: Final = Program("log_manager", 0x87539319, logging.TYPES, logging.ROWS)  # virtlogd's, likewise
PROGRAMS: Final = {program.number: program for program in (REMOTE, QEMU, LXC)}

ERROR: Final[Codec] = TYPES.codec(TYPES.fields("error"))


def program_of(procedure: Procedure) -> Program:
    """The program that a procedure is one of."""
    return next(program for program in PROGRAMS.values() if program.by_name.get(procedure.name) is procedure)
