"""How long copies from and to qed, qcow and parallels take beside real ``qemu-img``: reported, never judged here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.rivals import LENGTH, Bench, write_random, write_text
from support.image import real_qemu_img

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]

FORMATS = ("qed", "qcow", "parallels")


@pytest.fixture(scope="module")
def folder(scratch: Path) -> Path:
    write_random(scratch / "dense.raw", LENGTH)
    write_random(scratch / "sparse.raw", 8 * LENGTH, every=16)
    write_text(scratch / "text.raw", LENGTH // 8)
    return scratch


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("format", FORMATS)
def test_convert(bench: Bench, folder: Path, format: str, kind: str) -> None:
    raw, image = folder / f"{kind}.raw", folder / f"{kind}.{format}"
    bench.measure(
        f"convert raw to {format}, {kind}",
        lambda output: ["convert", "-f", "raw", "-O", format, str(raw), output],
        folder,
    )
    real_qemu_img("convert", "-f", "raw", "-O", format, raw, image)
    try:
        bench.measure(
            f"convert {format} to raw, {kind}",
            lambda output: ["convert", "-f", format, "-O", "raw", str(image), output],
            folder,
        )
    finally:
        image.unlink()


def test_compress(bench: Bench, folder: Path) -> None:
    raw, image = folder / "text.raw", folder / "text.qcow"
    # The real tool ends with 1 though it has done its work: its exit code is swallowed, for both.
    bench.measure(
        "convert -c raw to qcow",
        lambda output: ["convert", "-c", "-f", "raw", "-O", "qcow", str(raw), output],
        folder,
        ends=(0, 1),
    )
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow", raw, image], check=False, timeout=300)
    bench.measure(
        "convert compressed qcow to raw",
        lambda output: ["convert", "-f", "qcow", "-O", "raw", str(image), output],
        folder,
    )
