"""The formats whose power cuts and faults are tried, with options that make small images reach far."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from hostel.block.options import Value
from support import luks
from support.format_workload import Subject
from support.memory import MemoryDriver


def _qed(rng: random.Random) -> dict[str, Value]:
    return {"cluster_size": 4096, "table_size": rng.choice((1, 2, 4))}


def _cluster_size(options: Mapping[str, Value]) -> int:
    return int(options["cluster_size"])


def _without_descriptor(data: bytes) -> bytes:
    """A vmdk image without its content ID, which is random, and without its name."""
    return data[:512] + data[512 + 10240 :]


def _parallels(rng: random.Random) -> dict[str, Value]:
    return {"cluster_size": rng.choice((512, 1024, 4096, 2560))}


def _in_sectors(data: bytes) -> bytes:
    """The same new parallels image with the other signature, with which its table counts sectors."""
    return b"WithoutFreeSpace" + data[16:]


def _in_use(data: bytes) -> bool:
    return data[44:48] == b"Ynot"


def _zeroed(data: bytes) -> bytes:
    """A new LUKS volume that reads as zeroes, as others do by themselves."""
    driver = MemoryDriver(data)
    with luks.opened(driver) as node:
        node.pwrite(0, bytes(node.length))
    return bytes(driver.data)


# Opened with a passphrase: see :func:`support.luks.many_volumes`.
ENCRYPTED: Final = {
    "luks": Subject(
        "luks",
        lambda rng: luks.FAST | luks.CHAINED,
        lambda options: 512,
        adapt=_zeroed,
        opened_with={"key-secret": "first"},
    )
}
SUBJECTS: Final = {
    "parallels": Subject("parallels", _parallels, _cluster_size, marked=_in_use, mends=True),
    "parallels in sectors": Subject(
        "parallels", _parallels, _cluster_size, marked=_in_use, mends=True, adapt=_in_sectors
    ),
    "qcow": Subject("qcow", lambda rng: {}, lambda options: 512 if "backing_file" in options else 4096, backing=True),
    "qed": Subject(
        "qed",
        _qed,
        _cluster_size,
        backing=True,
        marked=lambda data: bool(data[16:17] and data[16] & 2),
        # What QEMU says of every image with tables of one cluster.
        stricter_qemu=("QED table offset is invalid",),
    ),
    "vmdk": Subject(
        "vmdk",
        lambda rng: {"zeroed_grain": rng.random() < 0.5},
        lambda options: 65536,
        compared=_without_descriptor,
    ),
}
