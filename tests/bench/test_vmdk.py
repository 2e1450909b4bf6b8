"""How long copies from and to VMware disks take beside real ``qemu-img``: reported, never judged here.

``HOSTEL_BENCH_MIB=4096`` makes the images larger than 1 GiB: starting, some 40 ms for us, counts less then.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.rivals import LENGTH, Bench, write_random, write_text
from support.image import real_qemu_img

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]

STREAM = ("-o", "subformat=streamOptimized")


@pytest.fixture(scope="module")
def folder(scratch: Path) -> Path:
    write_random(scratch / "dense.raw", LENGTH // 2)
    write_random(scratch / "sparse.raw", 4 * LENGTH, every=16)
    write_text(scratch / "text.raw", LENGTH // 4)
    for kind in ("dense", "sparse", "text"):
        options = STREAM if kind == "text" else ()
        real_qemu_img("convert", "-f", "raw", "-O", "vmdk", *options, scratch / f"{kind}.raw", scratch / f"{kind}.vmdk")
    return scratch


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(("source", "target"), [("raw", "vmdk"), ("vmdk", "raw"), ("vmdk", "vmdk")])
def test_convert(bench: Bench, folder: Path, kind: str, source: str, target: str) -> None:
    name = str(folder / f"{kind}.{source}")
    bench.measure(
        f"convert {source} to {target}, {kind}",
        lambda output: ["convert", "-f", source, "-O", target, name, output],
        folder,
    )


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_convert_to_several_files(bench: Bench, folder: Path, subformat: str) -> None:
    def clear() -> None:
        for path in folder.glob("output-*"):
            path.unlink()

    name = str(folder / "dense.raw")
    bench.measure(
        f"convert raw to {subformat}, dense",
        lambda output: ["convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", name, output],
        folder,
        between=clear,
    )
    clear()


def test_compress(bench: Bench, folder: Path) -> None:
    name = str(folder / "text.raw")
    bench.measure(
        "convert raw to streamOptimized, text",
        lambda output: ["convert", "-f", "raw", "-O", "vmdk", *STREAM, name, output],
        folder,
    )


def test_decompress(bench: Bench, folder: Path) -> None:
    name = str(folder / "text.vmdk")
    bench.measure(
        "convert streamOptimized to raw, text",
        lambda output: ["convert", "-f", "vmdk", "-O", "raw", name, output],
        folder,
    )


def test_empty_8_tib(bench: Bench, folder: Path) -> None:
    name = folder / "empty.vmdk"
    real_qemu_img("create", "-q", "-f", "vmdk", name, "8T")
    bench.measure("map vmdk, 8 TiB, empty", lambda output: ["map", "-f", "vmdk", "--output=json", str(name)], folder)
