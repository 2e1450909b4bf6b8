"""qcow2 images whose data lies in another file, both in memory."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

from hostel.block.node import BlockNode
from hostel.block.options import Value
from support import qcow2
from support.memory import MemoryDriver, memory_node
from support.qcow2_workload import Workload

_IMPOSSIBLE = {"compress", "create_snapshot", "delete_snapshot", "apply_snapshot", "amend", "rebase"}


class ExternalWorkload(Workload):
    """Random operations on an image whose data lies in another file.

    Attributes:
        disks: what holds the image's bytes, and what those of its data file.
    """

    disks: Sequence[MemoryDriver]

    def __init__(
        self,
        rng: random.Random,
        make_disks: Callable[[bytes, bytes], Sequence[MemoryDriver]],
        *,
        options: dict[str, Value],
        size: int | None = None,
    ) -> None:
        def place(data: bytes) -> MemoryDriver:
            self.disks = make_disks(data, b"")
            return self.disks[0]

        super().__init__(rng, place, options=options, size=size, aligned=True, preallocate=False)

    @property
    def raw(self) -> bool:
        """Whether the data file must read as the disk does."""
        return bool(self.options.get("data_file_raw"))

    def open(self) -> BlockNode:
        """Open both files; a new image has no size yet."""
        if self.content and not qcow2.header(self.disks[0].data).size:
            with open_external(*self.disks) as node:
                node.resize(len(self.content))
        return open_external(*self.disks, backing=self.backing)

    def fork_to(self, disks: Sequence[MemoryDriver], rng: random.Random) -> ExternalWorkload:
        """The same image, closed, lying in other files: opened there."""
        moved = copy.copy(self)
        moved.disks = disks
        forked = moved.fork(disks[0], rng)
        assert isinstance(forked, ExternalWorkload)
        return forked

    def operations(self) -> dict[str, int]:
        """What such images allow."""
        return {name: weight for name, weight in super().operations().items() if name not in _IMPOSSIBLE}


def open_external(
    image: MemoryDriver, data: MemoryDriver, *, backing: bytes | None = None, read_only: bool = False
) -> BlockNode:
    """Open an image and its data file, over a raw backing image where there is one."""
    node = qcow2.attach(image, read_only=read_only, backing=backing)
    node.driver.children["data-file"] = memory_node(data, read_only=read_only)
    return node
