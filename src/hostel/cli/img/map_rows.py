"""The map of an image of very many runs: each is data in the image's file, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from hostel.block.node import BlockNode
from hostel.cli.qemu.output import Output
from hostel.codec.lines import Part, Scratch, render
from hostel.img.map_columns import Rows
from hostel.img.team import Team, worker_count

_SEPARATOR: Final = ",\n"
_WORKERS: Final = 2


def print_json(node: BlockNode, blocks: Iterator[Rows], output: Output, *, tells: bool) -> None:
    """Print a map for programs; ``tells``: say of each run that it is not compressed."""
    shown = ', "compressed": false' if tells else ""
    data = f', "depth": 0, "present": true, "zero": false, "data": true{shown}, "offset": '
    nothing = f', "depth": 0, "present": false, "zero": true, "data": false{shown}'
    parts = [
        Part(f'{_SEPARATOR}{{ "start": '.encode(), 0),
        Part(b', "length": ', 1),
        Part(data.encode(), 2, other=nothing.encode()),
        Part(b"}"),
    ]
    skipped = len(_SEPARATOR)  # before the first line

    def show(lines: memoryview) -> None:
        nonlocal skipped
        output.encoded(lines[skipped:])
        skipped = 0

    output.text("[")
    _render(node, parts, blocks, show)
    output.text("]\n")


def print_human(node: BlockNode, blocks: Iterator[Rows], output: Output, filename: str) -> None:
    """Print a map for people: the data, and that it lies in the file of this name."""
    parts = [
        *(Part(column=column, base=16, width=16) for column in range(3)),
        Part(f"{filename}\n".encode(errors="surrogateescape")),
    ]
    _render(node, parts, (Rows(*(column[block.hosts != 0] for column in block)) for block in blocks), output.encoded)


def _render(node: BlockNode, parts: Sequence[Part], blocks: Iterator[Rows], show: Callable[[memoryview], None]) -> None:
    def work(rows: Rows, scratch: Scratch) -> memoryview:
        return render(parts, rows, rows.hosts != 0, scratch).data

    Team((block for block in blocks if len(block.starts)), (node,), Scratch, lambda: work).run(
        worker_count(_WORKERS), show
    )
