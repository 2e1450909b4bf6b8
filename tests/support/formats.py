"""Every image format in tests: how images of it are made and named, by the real tool and by ours, and the matrix page.

A format is one row of :data:`CASES`. The tests that run over all formats take it from there, and so does
``docs/compatibility/formats.md``, which ``make formats`` writes from what those tests found.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.block import graph, registry
from hostel.block.blockdev import from_options
from hostel.block.node import BlockNode
from hostel.cli.main import main
from support import dmg, key_timing
from support.additions import without_additions
from support.old_images import bochs, cloop

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
SECTOR: Final = 512
PAGE: Final = Path(__file__).parents[2] / "docs" / "compatibility" / "formats.md"
RECORDING: Final = os.environ.get("HOSTEL_RECORD") == "1"
_SECRET: Final = ("--object", "secret,id=key,data=passphrase")


# Creation options that QEMU has had since a release after the one that judges here.
NEWER: Final = ("detached-header",)


class Case(NamedTuple):
    """What the tests need to know of a format.

    Attributes:
        variants: creation options of which each makes another kind of image; the first is the usual one.
        options: creation options that every image needs.
        secret: images are opened with a passphrase.
        backing: images can be overlays.
        largest: the largest virtual size that is tried, bytes; a format without tables for it has none so large.
        coarse_map: QEMU says of all blocks that they are data: what we call zeroes is held against the content.
        grows: virtual sizes are rounded up, to whatever the format can express.
        creates: images can be made.
        sample: makes an image where nobody else does: of formats that are only read.
    """

    variants: tuple[str, ...] = ("",)
    options: str = ""
    secret: bool = False
    backing: bool = False
    largest: int = 2 * TIB + GIB
    coarse_map: bool = False
    grows: bool = False
    creates: bool = True
    sample: Callable[[], bytes] | None = None


def _bochs() -> bytes:
    rng = random.Random("bochs")
    return bochs({number: rng.randbytes(SECTOR) for number in rng.sample(range(3000), 500)}, 3000 * SECTOR)


def _cloop() -> bytes:
    data = random.Random("cloop").randbytes(300_000)
    return cloop(data.ljust(20 * 65536, b"\0"), block_size=65536)


def _dmg() -> bytes:
    rng = random.Random("dmg")
    kinds = (dmg.ZLIB, dmg.RAW, dmg.ZERO, dmg.ZLIB)
    parts = [dmg.part(kind, 100 * at, (rng.randbytes(20) * 2560)[: 100 * SECTOR]) for at, kind in enumerate(kinds)]
    return dmg.dmg(parts, 400 * SECTOR)


CASES: Final[dict[str, Case]] = {
    "bochs": Case(creates=False, sample=_bochs),
    "cloop": Case(creates=False, sample=_cloop),
    "cow": Case(creates=False),
    "dmg": Case(creates=False, sample=_dmg, coarse_map=True),
    "luks": Case(("", "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256"),
                 options="key-secret=key,iter-time=10", secret=True),
    "parallels": Case(("", "cluster_size=64k", "cluster_size=252k")),
    "qcow": Case(backing=True),
    "qed": Case(backing=True),
    "qcow2": Case(("", "compat=0.10", "cluster_size=512", "extended_l2=on", "compression_type=zstd",
                   "preallocation=metadata"), backing=True),
    "raw": Case(("", "preallocation=full")),
    "vdi": Case(("", "static=on")),
    "vmdk": Case(("", "zeroed_grain=on", "subformat=streamOptimized", "compat6=on,adapter_type=lsilogic")),
    "vhdx": Case(("", "block_size=1M", "subformat=fixed", "block_state_zero=off", "log_size=3M,block_size=256M"),
                 coarse_map=True),
    "vpc": Case(("", "force_size=on", "subformat=fixed", "subformat=fixed,force_size=on"), grows=True,
                largest=2040 * GIB),
}  # fmt: skip


# ---- the tools


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def theirs(*words: object, tool: str = "qemu-img") -> Result:
    """Run the real tool; that Debian ships it without two modules for dmg is left out of what it says."""
    command = [tool, *map(str, words)]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    ended = key_timing.run(command, env=environment, timeout=120)
    said = re.sub(r"(?m)^qemu: module block-.* not found.*\n", "", ended.stderr.decode())
    return Result(ended.returncode, ended.stdout.decode(), said)


def ours(*words: object, tool: str = "qemu-img") -> Result:
    """Run our tool, in process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([tool, *map(str, words)])
    return Result(code, out.getvalue(), without_additions(err.getvalue()))


def good(result: Result) -> Result:
    """The same result, which must be a success."""
    assert result.code == 0, result
    return result


def patiently(*words: object) -> Result:
    """Run the real tool again where it fails: on a busy machine it may be unable to measure how fast it is."""
    for _ in range(40):
        result = theirs(*words)
        if result.code == 0 or "CPU usage" not in result.err:
            break
    return result


# ---- images


class Image(NamedTuple):
    """An image file of a format."""

    path: Path
    format: str

    @property
    def options(self) -> str:
        """How ``--image-opts`` calls it."""
        secret = ",key-secret=key" if CASES[self.format].secret else ""
        return f"driver={self.format}{secret},file.filename={self.path}"

    @property
    def named(self) -> tuple[str, ...]:
        """The words that name it to a command which takes one image."""
        return (*self.secrets, "--image-opts", self.options)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The words that its passphrase needs."""
        return _SECRET if CASES[self.format].secret else ()

    def open(self, *, read_only: bool = True) -> BlockNode:
        """Open it with our block layer; only without a passphrase."""
        options = dict(part.split("=", 1) for part in self.options.split(","))
        return graph.open(from_options(options), read_only=read_only)


def creation(format: str, variant: str = "") -> tuple[str, ...]:
    """The words that creating an image needs, but for its name and size."""
    options = ",".join(filter(None, (CASES[format].options, variant)))
    return (*(_SECRET if CASES[format].secret else ()), *(("-o", options) if options else ()))


def disks(folder: Path) -> dict[str, Path]:
    """Raw disks: one with data in places, one full of it, one that ends within a sector."""
    rng = random.Random("disks")
    made = {name: folder / f"{name}.disk" for name in ("sparse", "dense", "odd")}
    with made["sparse"].open("wb") as stream:
        stream.truncate(9 * MIB + 3 * SECTOR)
        for offset in (0, MIB - SECTOR, 2 * MIB, 5 * MIB + 7 * SECTOR, 9 * MIB + 2 * SECTOR):
            stream.seek(offset)
            stream.write(rng.randbytes(3 * SECTOR if offset < 9 * MIB else SECTOR))
        stream.seek(3 * MIB)
        stream.write(rng.randbytes(1500 * 1000))
    made["dense"].write_bytes(rng.randbytes(3 * MIB))
    made["odd"].write_bytes(rng.randbytes(MIB + 1000))
    return made


def equal(first: Image, second: Image) -> None:
    """For the real tool both show the same; a longer one is zeroes beyond the other's end."""
    words = ("--image-opts", *first.secrets, *(() if first.secrets else second.secrets))
    good(theirs("compare", "-q", *words, first.options, second.options))


def clean(image: Image) -> None:
    """Both tools find nothing wrong, or have no checks for the format."""
    for tool in (theirs, ours):
        assert tool("check", "-q", *image.named).code in (0, 63), tool("check", *image.named)


# ---- the page

Cells = dict[tuple[str, str, str], str]  # table, row, column: what was found

TABLES: Final[dict[str, tuple[str, str]]] = {
    "Operations": (
        "format",
        "Each cell was found by a test that holds ours against real `qemu-img`. *yes*: ours does it, and the real\n"
        "tool agrees on the outcome. *refused alike*: both refuse it, in the same words. *finer*: ours tells zeroes\n"
        "that QEMU calls data; they are zeroes. *grows*: sizes are rounded up to what the format can express, to\n"
        "QEMU's own. A dash: there is no such thing.",
    ),
    "Creating": (
        "format and options",
        "An image that ours creates with these options is as long as QEMU's, and read and checked by the real tool.",
    ),
    "Converting": (
        "from, to",
        "The source was made by the real tool, the target by ours: for the real tool both are equal, and the target\n"
        "is sound.",
    ),
}
_COLUMNS: Final = "probe info -o help read write over 4 GiB over 2 TiB map check grow shrink overlay base"  # in order
_HEAD: Final = """\
# Formats, as the tests found them

<!-- Generated by `make formats` from a run of tests/conformance/test_format_matrix.py; do not edit. -->

Judged by `qemu-img` and `qemu-io` 7.2. What each format supports, and where ours differs on purpose, is on
[its own page](../formats/).
"""


def write_page(cells: Mapping[tuple[str, str, str], str]) -> str:
    """The page that says what was found."""
    parts = [_HEAD]
    for table, (corner, text) in TABLES.items():
        found = {(row, column): cell for (of, row, column), cell in cells.items() if of == table}
        rows = sorted({row for row, _ in found})
        columns = sorted({column for _, column in found}, key=lambda name: (_COLUMNS.find(name), name))
        lines = [_line([corner, *columns]), "|---" * (len(columns) + 1) + "|"]
        lines += [_line([row, *(found.get((row, column), "-") for column in columns)]) for row in rows]
        parts.append(f"\n## {table}\n\n{text}\n\n" + "\n".join(lines) + "\n")
    return "".join(parts)


def read_page(text: str) -> Cells:
    """The cells of a page."""
    cells: Cells = {}
    for part in re.split(r"(?m)^## ", text)[1:]:
        table = part.partition("\n")[0]
        lines = [_cells(line) for line in part.splitlines() if line.startswith("|") and not line.startswith("|--")]
        for row, *values in lines[1:]:
            cells |= {
                (table, row, column): cell for column, cell in zip(lines[0][1:], values, strict=True) if cell != "-"
            }
    return cells


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def formats() -> list[str]:
    """The names of the formats that the real tool reads as well, and of which there are images."""
    known = [name for name in registry.FORMATS if name in CASES]
    return sorted(name for name in known if CASES[name].creates or CASES[name].sample is not None)
