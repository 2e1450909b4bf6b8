"""How long copies from and to qed, qcow and parallels take beside real ``qemu-img``: reported, never judged here."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rivals import MIB, Bench, fast_folder, write_random, write_text

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]

LENGTH = int(os.environ.get("HOSTEL_BENCH_MIB", "1024")) * MIB
FORMATS = ("qed", "qcow", "parallels")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    collected = Bench()
    yield collected
    print("\n" + collected.report())
    collected.save()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=fast_folder(tmp_path_factory.mktemp("bench"))) as name:
        path = Path(name)
        write_random(path / "dense.raw", LENGTH)
        write_random(path / "sparse.raw", 8 * LENGTH, every=16)
        write_text(path / "text.raw", LENGTH // 8)
        yield path


def real(*arguments: object) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, timeout=300)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("format", FORMATS)
def test_convert(bench: Bench, folder: Path, format: str, kind: str) -> None:
    raw, image = folder / f"{kind}.raw", folder / f"{kind}.{format}"
    bench.measure(
        f"convert raw to {format}, {kind}",
        lambda output: ["convert", "-f", "raw", "-O", format, str(raw), output],
        folder,
    )
    real("convert", "-f", "raw", "-O", format, raw, image)
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
