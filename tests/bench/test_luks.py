"""How long copies of encrypted disks take beside real ``qemu-img``: reported, never judged here.

The volumes are there before: to make one takes as long as it is told to, and ``qemu-img`` 7.2 fails at it at random.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.rivals import LENGTH, Bench, write_random
from support.image import qemu_img

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]

SECRET = ("--object", "secret,id=key,data=passphrase")
FORMATS = {"luks": "", "qcow2": "encrypt.format=luks,"}
PREFIX = {"luks": "", "qcow2": "encrypt."}


@pytest.fixture(scope="module")
def folder(scratch: Path) -> Path:
    write_random(scratch / "dense.raw", LENGTH)
    for format, first in FORMATS.items():
        prefix = PREFIX[format]
        options = f"{first}{prefix}key-secret=key,{prefix}iter-time=10"
        qemu_img("create", "-q", *SECRET, "-f", format, "-o", options, scratch / f"empty.{format}", LENGTH)
        qemu_img(
            *("convert", *SECRET, "-f", "raw", "-O", format, "-o", options),
            *(scratch / "dense.raw", scratch / f"dense.{format}"),
        )
    return scratch


def described(format: str, path: Path) -> str:
    """An encrypted image, by options."""
    return f"driver={format},{PREFIX[format]}key-secret=key,file.filename={path}"


@pytest.mark.parametrize("format", FORMATS)
def test_decrypt(bench: Bench, folder: Path, format: str) -> None:
    source = described(format, folder / f"dense.{format}")
    bench.measure(
        f"convert {format}, LUKS, to raw",
        lambda output: ["convert", *SECRET, "--image-opts", "-O", "raw", source, output],
        folder,
    )


@pytest.mark.parametrize("format", FORMATS)
def test_encrypt(bench: Bench, folder: Path, format: str) -> None:
    target = folder / f"target.{format}"
    source = f"driver=raw,file.filename={folder / 'dense.raw'}"
    bench.measure(
        f"convert raw to {format}, LUKS",
        lambda output: [
            *("convert", "-n", *SECRET, "--image-opts", "--target-image-opts", source, described(format, target))
        ],
        folder,
        between=lambda: shutil.copy(folder / f"empty.{format}", target),
    )
    target.unlink()


@pytest.mark.parametrize("format", FORMATS)
def test_compare(bench: Bench, folder: Path, format: str) -> None:
    names = f"driver=raw,file.filename={folder / 'dense.raw'}", described(format, folder / f"dense.{format}")
    bench.measure(
        f"compare raw with {format}, LUKS", lambda output: ["compare", *SECRET, "--image-opts", *names], folder
    )
