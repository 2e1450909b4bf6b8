"""Every format by every operation, beside real ``qemu-img``; the outcome is ``docs/compatibility/formats.md``.

``make formats`` writes that page from a run of this module (of a part of it: these cells only); without it a cell that
no longer holds fails its test.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block.registry import FORMATS
from support.fast_keys import fast_keys
from support.formats import (
    CASES,
    GIB,
    KIB,
    MIB,
    NEWER,
    PAGE,
    RECORDING,
    SECTOR,
    Cells,
    Image,
    clean,
    creation,
    disks,
    equal,
    formats,
    good,
    ours,
    patiently,
    read_page,
    theirs,
    write_page,
)

__all__ = ["fast_keys"]

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]

YES, ALIKE, NONE = "yes", "refused alike", "-"
READ = formats()
MADE = [name for name in READ if CASES[name].creates]
VARIANTS = [(name, variant) for name in MADE for variant in CASES[name].variants]


class Source:
    """The raw disks, and the images that the real tool makes of them, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disks = disks(folder)
        self._made: dict[tuple[str, str], Image] = {}

    def disk(self, name: str) -> Image:
        return Image(self.disks[name], "raw")

    def image(self, format: str, disk: str = "sparse") -> Image:
        if (sample := CASES[format].sample) is not None:
            image = Image(self.folder / f"sample.{format}", format)
            if not image.path.exists():
                image.path.write_bytes(sample())
            return image
        if (format, disk) not in self._made:
            image = Image(self.folder / f"{disk}.{format}", format)
            words = creation(format)
            good(patiently("convert", *words, "-f", "raw", "-O", format, self.disks[disk], image.path))
            self._made[format, disk] = image
        return self._made[format, disk]

    def copy(self, format: str, to: Path) -> Image:
        """An image that a test may change."""
        shutil.copy(self.image(format).path, to)
        return Image(to, format)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(tmp_path_factory.mktemp("formats"))


class Page:
    """What the page says, or what is going to be on it."""

    def __init__(self) -> None:
        self.cells: Cells = read_page(PAGE.read_text()) if PAGE.exists() else {}

    def found(self, table: str, row: str, column: str, outcome: str) -> None:
        """Enter an outcome, or hold it against what is written there."""
        if RECORDING:
            self.cells[table, row, column] = outcome
        else:
            assert self.cells.get((table, row, column), NONE) == outcome, "the page is stale: run make formats"


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    page = Page()
    yield page
    if RECORDING:
        assert not request.session.testsfailed, "the page is written only when every test has passed"
        PAGE.write_text(write_page(page.cells))


def test_every_format_has_its_case() -> None:
    assert set(FORMATS) <= set(CASES)


@pytest.mark.skipif(RECORDING, reason="the page is being written")
def test_the_page_is_what_the_run_writes(page: Page) -> None:
    assert write_page(page.cells) == PAGE.read_text()
    for table in ("Operations", "Converting"):
        assert {row for of, row, _ in page.cells if of == table} == set(READ)


# ---- operations, in the page's order


@pytest.mark.parametrize("format", READ)
def test_probe(source: Source, page: Page, format: str) -> None:
    image = source.image(format)
    told = json.loads(good(theirs("info", "--output=json", image.path)).out)["format"]
    found = json.loads(good(ours("info", "--output=json", image.path)).out)["format"]
    assert told == found == format
    page.found("Operations", format, "probe", YES)


@pytest.mark.parametrize("format", READ)
def test_info(source: Source, page: Page, format: str) -> None:
    image = source.image(format)
    for words in (("info",), ("info", "--output=json")):
        assert ours(*words, *image.named) == good(theirs(*words, *image.named))
    page.found("Operations", format, "info", YES)


@pytest.mark.parametrize("format", MADE)
def test_help(page: Page, format: str) -> None:
    for words in (("create", "-f", format, "-o", "help"), ("create", "-f", format, "-o", "help", "x")):
        found = ours(*words)
        shown = [line for line in found.out.splitlines(keepends=True) if line.split("=")[0].strip() not in NEWER]
        assert found._replace(out="".join(shown)) == good(theirs(*words))
    page.found("Operations", format, "-o help", YES)


@pytest.mark.parametrize("format", MADE)
def test_amend_help(format: str) -> None:
    words = ("amend", "-f", format, "-o", "help")
    assert ours(*words) == theirs(*words)


@pytest.mark.parametrize("format", READ)
def test_read(source: Source, page: Page, tmp_path: Path, format: str) -> None:
    for disk in source.disks:
        image, copy = source.image(format, disk), Image(tmp_path / "copy.raw", "raw")
        good(ours("convert", *image.named, "-O", "raw", copy.path))
        if CASES[format].creates:
            equal(source.disk(disk), copy)
        equal(image, copy)
    page.found("Operations", format, "read", YES)


@pytest.mark.parametrize("format", MADE)
def test_write(source: Source, page: Page, tmp_path: Path, format: str) -> None:
    for disk, path in source.disks.items():
        image = Image(tmp_path / disk, format)
        good(ours("convert", *creation(format), "-f", "raw", "-O", format, path, image.path))
        equal(source.disk(disk), image)
        clean(image)
        length = json.loads(good(theirs("info", "--output=json", *image.named)).out)["virtual-size"]
        told = json.loads(good(theirs("info", "--output=json", *source.image(format, disk).named)).out)["virtual-size"]
        assert length == told
        assert (length > -(-path.stat().st_size // SECTOR) * SECTOR) <= CASES[format].grows
    page.found("Operations", format, "write", "yes, grows" if CASES[format].grows else YES)


@pytest.mark.parametrize("format", MADE)
@pytest.mark.parametrize("size", [5 * GIB + SECTOR, CASES["raw"].largest], ids=["5 GiB", "2 TiB"])
def test_large(page: Page, tmp_path: Path, format: str, size: int) -> None:
    column = "over 4 GiB" if size < 6 * GIB else "over 2 TiB"
    if size > CASES[format].largest:
        image = Image(tmp_path / "disk", format)
        words = ("create", "-q", "-f", format, *creation(format), image.path, size)
        refused = ours(*words)
        assert refused.code
        assert refused == patiently(*words)
        page.found("Operations", format, column, ALIKE)
        return
    pieces = (0, 4 * GIB - 3 * SECTOR, size // 2 // SECTOR * SECTOR, size - 40 * SECTOR)
    writes = [part for at, place in enumerate(pieces, 1) for part in ("-c", f"write -q -P {at} {place} 10k")]
    reads = [part for at, place in enumerate(pieces, 1) for part in ("-c", f"read -q -P {at} {place} 10k")]
    reads += [
        "-c",
        f"read -q -P 0 {GIB} 1M",
        "-c",
        f"read -q -P 0 {size - 40 * KIB} 20k",
        "-c",
        f"read -q -P 0 {size - 10 * KIB} 10k",
    ]
    if CASES[format].secret:  # nothing is zero on a fresh encrypted disk
        reads = reads[: 2 * len(pieces)]
    for make, judge in ((ours, theirs), (theirs, ours)):
        image = Image(tmp_path / make.__name__, format)
        create = patiently if make is theirs else ours
        good(create("create", "-q", "-f", format, *creation(format), image.path, size))
        assert make("-t", "unsafe", *image.named, *writes, tool="qemu-io") == (0, "", "")
        assert judge(*image.named, *reads, tool="qemu-io") == (0, "", "")
        clean(image)
    page.found("Operations", format, column, YES)


@pytest.mark.parametrize("format", READ)
def test_map(source: Source, page: Page, tmp_path: Path, format: str) -> None:
    image = source.image(format)
    words = ("map", "--output=json", *image.named)
    found, told = good(ours(*words)), good(theirs(*words))
    if not CASES[format].coarse_map:
        assert found == told
        page.found("Operations", format, "map", YES)
        return
    copy = tmp_path / "copy.raw"
    good(theirs("convert", *image.named, "-O", "raw", copy))
    content = copy.read_bytes()
    for entry in json.loads(found.out):
        if entry["zero"]:
            assert not any(content[entry["start"] : entry["start"] + entry["length"]])
    page.found("Operations", format, "map", "finer")


@pytest.mark.parametrize("format", READ)
def test_check(source: Source, page: Page, format: str) -> None:
    image = source.image(format)
    for words in (("check",), ("check", "--output=json")):
        told = theirs(*words, *image.named)
        assert told.code in (0, 63)
        assert ours(*words, *image.named) == told
    page.found("Operations", format, "check", ALIKE if told.code else YES)


@pytest.mark.parametrize("format", READ)
@pytest.mark.parametrize("way", ["grow", "shrink"])
def test_resize(source: Source, page: Page, tmp_path: Path, format: str, way: str) -> None:
    change = "+3M" if way == "grow" else "-3M"
    disk = tmp_path / "expected.raw"
    shutil.copy(source.disks["sparse"], disk)
    good(theirs("resize", "-q", "--shrink", "-f", "raw", disk, change))
    ends = []
    for tool in (theirs, ours):
        image = source.copy(format, tmp_path / "disk")
        before = image.path.read_bytes()
        ends.append(tool("resize", "-q", *(["--shrink"] if way == "shrink" else []), *image.named, change))
    assert ends[0] == ends[1]
    if ends[0].code:
        assert image.path.read_bytes() == before
    elif (
        not CASES[format].secret or way == "shrink"
    ):  # what an encrypted disk grows by is whatever decrypts from zeroes
        equal(Image(disk, "raw"), image)
    page.found("Operations", format, way, ALIKE if ends[0].code else YES)


@pytest.mark.parametrize("format", MADE)
def test_overlay(source: Source, page: Page, tmp_path: Path, format: str) -> None:
    image = Image(tmp_path / "disk", format)
    words = ("create", "-q", "-f", format, *creation(format), "-b", source.disks["sparse"], "-F", "raw", image.path)
    found = ours(*words)
    if not CASES[format].backing:
        assert found.code
        assert found == theirs(*words)
        page.found("Operations", format, "overlay", ALIKE)
        return
    good(found)
    equal(source.disk("sparse"), image)
    good(ours("-f", format, "-c", "write -q -P 7 1M 5k", image.path, tool="qemu-io"))
    good(theirs("-f", format, "-c", "read -q -P 7 1M 5k", image.path, tool="qemu-io"))
    clean(image)
    page.found("Operations", format, "overlay", YES)


@pytest.mark.parametrize("format", [name for name in READ if not CASES[name].secret])
def test_base(source: Source, page: Page, tmp_path: Path, format: str) -> None:
    image = Image(tmp_path / "disk", "qcow2")
    good(ours("create", "-q", "-f", "qcow2", "-b", source.image(format).path, "-F", format, image.path))
    equal(source.image(format), image)
    found, told = (tool("map", "--output=json", image.path) for tool in (ours, theirs))
    assert CASES[format].coarse_map or found == good(told)
    page.found("Operations", format, "base", YES)


# ---- creating, and converting


@pytest.mark.parametrize(("format", "variant"), VARIANTS)
def test_create(source: Source, page: Page, tmp_path: Path, format: str, variant: str) -> None:
    sizes = []
    for tool in (patiently, ours):
        image = Image(tmp_path / tool.__name__, format)
        size = 3 * MIB if CASES[format].secret else 7 * MIB + SECTOR  # the rest of an encrypted disk is not zeroes
        said = good(tool("create", "-f", format, *creation(format, variant), image.path, size))
        sizes.append((said.out.replace(tool.__name__, "NAME"), image.path.stat().st_size))
    assert sizes[0] == sizes[1]
    clean(image)
    good(ours("convert", "-n", "-f", "raw", *_target(image), source.disks["dense"], *_place(image)))
    equal(source.disk("dense"), image)
    clean(image)
    row = f"{format} {variant.replace(',', ', ')}".strip()
    page.found("Creating", row, "read and checked by QEMU", YES)


def _target(image: Image) -> tuple[str, ...]:
    return (*image.secrets, "--target-image-opts") if image.secrets else ("-O", image.format)


def _place(image: Image) -> tuple[str, ...]:
    return (image.options,) if image.secrets else (str(image.path),)


@pytest.mark.parametrize("target", MADE)
@pytest.mark.parametrize("format", READ)
def test_convert(source: Source, page: Page, tmp_path: Path, format: str, target: str) -> None:
    image, copy = source.image(format), Image(tmp_path / "copy", target)
    secrets = () if not image.secrets else creation(target)[2:] if copy.secrets else creation(target)
    words = (*image.named, *(secrets if image.secrets else creation(target)))
    good(ours("convert", *words, "-O", target, copy.path))
    equal(image, copy)
    clean(copy)
    page.found("Converting", format, target, YES)
