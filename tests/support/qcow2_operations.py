"""One operation of a workload, done so that all that it changes reaches the disk."""

from __future__ import annotations

from hostel.block.options import Value
from support.crash import Version
from support.qcow2_workload import Workload

AMENDMENTS: dict[str, dict[str, Value]] = {
    "amend to 1.1": {"compat": "1.1"},
    "amend to 0.10": {"compat": "0.10", "refcount_bits": 16, "lazy_refcounts": False},
    "amend to lazy refcounts": {"compat": "1.1", "lazy_refcounts": True},
    "amend to 32 bits": {"compat": "1.1", "refcount_bits": 32},
    "amend to no raw data": {"data_file_raw": False},
}


def perform(workload: Workload, name: str) -> None:
    """Do one operation, and write what it holds back; bitmaps wait for the end of writing."""
    if name in AMENDMENTS:
        workload.amend_to(AMENDMENTS[name])
    else:
        getattr(workload, name)()
    if name.endswith("bitmap"):
        workload.image._image.end_write()
    workload.node.flush()


def version_of(workload: Workload) -> Version:
    """What the guest sees now."""
    return Version(0, 0, bytes(workload.content), dict(workload.snapshots), dict(workload.bitmaps))
