"""Machine state, kept beyond the guest's disk ("Snapshots" in the qcow2 specification, VM state).

It starts where the first L2 table after those of the disk starts, and is mapped like the disk's clusters are.
"""

from __future__ import annotations

import errno

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.resize import grow_l1, with_size
from hostel.block.formats.qcow2.write import Guest
from hostel.errors import NoSpace


def vm_state_offset(image: Qcow2Image) -> int:
    """Where machine state starts, in the guest's bytes."""
    return image.geometry.l1_entries(image.size) * image.geometry.l2_reach


def load_vm_state(guest: Guest, offset: int, buf: memoryview) -> None:
    """Fill ``buf`` from byte ``offset`` of the machine state; what was never saved reads as zeroes."""
    start = vm_state_offset(guest.image) + offset
    with_size(guest, start + len(buf), lambda: guest.read(start, buf))


def save_vm_state(guest: Guest, offset: int, data: memoryview) -> None:
    """Write at byte ``offset`` of the machine state.

    Raises:
        NoSpace: it is beyond what the cluster size can map (EFBIG).
        OSError: the host's own errors.
    """
    image = guest.image
    start = vm_state_offset(image) + offset
    end = image.geometry.align(start + len(data))
    entries = image.geometry.l1_entries(end)
    if entries > layout.MAX_L1_SIZE // 8:
        raise NoSpace("The machine state is beyond what the cluster size can map", errno=errno.EFBIG)
    image.begin_write()
    grow_l1(image, entries)
    with_size(guest, end, lambda: guest.write(start, data))
