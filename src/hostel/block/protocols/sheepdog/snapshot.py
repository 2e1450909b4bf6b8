"""Snapshots of a Sheepdog disk: frozen disks of the same name."""

from __future__ import annotations

import errno
from typing import Final

from hostel.block.powers import SnapshotInfo
from hostel.block.protocols.sheepdog.address import Disk
from hostel.block.protocols.sheepdog.connection import Connection, require
from hostel.block.protocols.sheepdog.vdi import Vdi, find, named, read_inode
from hostel.errors import BlockError
from hostel.wire.sheepdog import protocol
from hostel.wire.sheepdog.protocol import MAX_NAME, MAX_VDIS, VDIS_LENGTH, Flag, Inode, Op

_NEAR: Final = 4096  # numbers that are looked at: those of one name lie together, with few others among them


def listed(connection: Connection, disk: Disk, flags: Flag) -> list[SnapshotInfo]:
    """All of a disk's snapshots.

    Raises:
        BlockError: the cluster does not tell.
    """
    used, dropped = bytearray(VDIS_LENGTH), bytearray(VDIS_LENGTH)
    reply = require(connection.vdi(Op.READ_VDIS, target=memoryview(used)), "cannot list the snapshots: ")
    if reply.length != len(used):
        raise BlockError(f"cannot list the snapshots: the server sent {reply.length} of {len(used)} bytes")
    # Servers that do not know this one clear the names of what was dropped.
    connection.vdi(Op.READ_DELETED_VDIS, target=memoryview(dropped))
    found = []
    first = protocol.first_vdi_id(disk.name)
    # Those that were dropped leave gaps.
    for vdi_id in (number % MAX_VDIS for number in range(first, first + _NEAR)):
        if (used[vdi_id >> 3] & ~dropped[vdi_id >> 3]) >> (vdi_id & 7) & 1:
            inode = read_inode(connection, vdi_id, flags)
            if _text(inode.name) == disk.name and inode.snapshotted:
                found.append(_described(inode))
    return found


def create(connection: Connection, disk: Disk, vdi: Vdi, tag: str) -> None:
    """Keep a disk's state: it becomes the snapshot, and a new one is the disk.

    Raises:
        BlockError: the tag is too long, or a number, or the cluster refuses.
    """
    encoded = tag.encode(errors="surrogateescape")
    if len(encoded) >= MAX_NAME:
        raise BlockError(f"The tag of a sheepdog snapshot has {MAX_NAME - 1} bytes", errno=errno.ERANGE)
    if _is_number(tag):
        raise BlockError(f"'{tag}' would be taken for a snapshot's number", errno=errno.EINVAL)
    vdi.set_tag(encoded)
    vdi.switch(_new_disk(connection, disk, vdi.inode, vdi.id, "failed to create inode for snapshot: "))


def apply(connection: Connection, disk: Disk, vdi: Vdi, snapshot: Disk, flags: Flag) -> None:
    """Go back to a snapshot: a new disk is made of it, and then what was the disk is dropped.

    Raises:
        BlockError: there is no such snapshot, or the cluster refuses.
    """
    wanted = find(connection, snapshot, lock=False)
    before = vdi.inode
    inode = read_inode(connection, wanted, flags)
    vdi.switch(_new_disk(connection, disk, inode, wanted, f"cannot go back to snapshot '{snapshot.tag}': "))
    delete(connection, disk._replace(snapshot_id=before.snapshot_id))


def delete(connection: Connection, snapshot: Disk) -> None:
    """Drop a snapshot.

    Raises:
        BlockError: there is no such snapshot, or the cluster refuses.
    """
    reply = connection.vdi(Op.DELETE_VDI, payload=named(snapshot.name, snapshot.tag), snapshot_id=snapshot.snapshot_id)
    require(reply, "cannot drop a snapshot: ")


def meant(disk: Disk, id_or_name: str) -> Disk:
    """The snapshot of a number, or else of a tag."""
    if _is_number(id_or_name):
        return disk._replace(snapshot_id=int(id_or_name), tag="")
    return disk._replace(snapshot_id=0, tag=id_or_name)


def _new_disk(connection: Connection, disk: Disk, inode: Inode, base_id: int, what: str) -> int:
    """Make what the disk is now a snapshot, and a new disk with the content of an inode."""
    reply = connection.vdi(
        Op.NEW_VDI,
        payload=named(disk.name),
        size=inode.size,
        base_id=base_id,
        copies=inode.copies,
        copy_policy=inode.copy_policy,
        object_bits=inode.object_bits,
        snapshot_id=1,
    )
    return protocol.VdiAnswer.unpack(require(reply, what).rest).vdi_id


def _described(inode: Inode) -> SnapshotInfo:
    seconds, nanoseconds = inode.snapshotted >> 32, inode.snapshotted & 0xFFFFFFFF
    return SnapshotInfo(
        str(inode.snapshot_id),
        _text(inode.tag),
        inode.vm_state_size,
        seconds,
        nanoseconds,
        inode.vm_clock_nsec,
        None,
        inode.size,
    )


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="surrogateescape")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < 2**32
