"""VMware disks of every kind, and random damage to their descriptors, streams and extents."""

from __future__ import annotations

import random
from collections.abc import Iterator

from support import vmdk
from support.memory import MemoryDriver
from support.qcow2_hostile import WORDS
from support.vmdk import GRAIN, descriptor

KINDS = ("text", "stream", "cowd", "sesparse")
WORDS_OF_TEXT = (
    b"RW", b"RDONLY", b"FLAT", b"SPARSE", b"VMFS", b"VMFSSPARSE", b"SESPARSE", b"ZERO", b"flat", b"cowd", b"se", b"d",
    b"/dev/zero", b"../x", b"json:{}", b"0", b"-1", b"1", b"64", b"99999999999", b"9223372036854775807", b"\0", b"\n",
    b'"', b" ", b"CID=", b"parentCID=", b"parentFileNameHint=", b'createType="', b"version=", b"#", b"\xff" * 600,
)  # fmt: skip


def sound(kind: str) -> dict[str, bytes]:
    """The files of a disk, of which ``d`` is opened; damage hits the first of the others, or the only one."""
    rng = random.Random(kind)
    grains = {number: rng.randbytes(4096) for number in (0, 1, 5, 7)}
    if kind == "stream":
        driver = MemoryDriver(vmdk.create(20 * GRAIN, {"subformat": "streamOptimized"}))
        with vmdk.attach(driver) as node:
            for number in (0, 3, 4):
                node.pwrite(number * GRAIN, rng.randbytes(GRAIN // 8) * 8)
        return {"d": bytes(driver.data)}
    if kind == "cowd":
        return {"cowd": vmdk.cowd(64, grains), "d": descriptor("vmfsSparse", 'RW 64 VMFSSPARSE "cowd"').encode()}
    if kind == "sesparse":
        return {
            "se": vmdk.sesparse(64, {**grains, 6: None}),
            "d": descriptor("seSparse", 'RW 64 SESPARSE "se"').encode(),
        }
    lines = ('RW 64 FLAT "flat" 8', 'RW 64 VMFSSPARSE "cowd"', 'RW 64 SESPARSE "se"', 'RW 64 VMFS "flat"')
    text = descriptor("vmfsSparse", *lines, hint="base", parent_cid="12345678")
    return {"d": text.encode(), "flat": bytes(40960), "cowd": vmdk.cowd(64, grains), "se": vmdk.sesparse(64, grains)}


def damaged(data: bytes, rng: random.Random, *, text: bool) -> tuple[bytes, str]:
    """A file with one to three things changed."""
    changed, history = bytearray(data), []
    for _ in range(rng.choice((1, 1, 2, 3))):
        if text:
            place, word = rng.randrange(len(changed) + 1), rng.choice(WORDS_OF_TEXT)
            gone = rng.choice((0, 0, 1, len(word), 20))
            changed[place : place + gone] = word
            history.append(f"{gone} bytes at {place} for {word!r}")
            continue
        width = rng.choice((4, 8))
        end = min(len(changed), 1024) if rng.random() < 0.5 else len(changed)
        place = rng.randrange(max(1, end // width)) * width
        value = rng.choice((*WORDS, rng.getrandbits(64), rng.randrange(1000))) & (1 << 8 * width) - 1
        changed[place : place + width] = value.to_bytes(width, "little")
        history.append(f"{value:#x} at {place:#x}")
    if rng.random() < 0.1:
        del changed[rng.randrange(len(changed)) :]
        history.append(f"cut to {len(changed)}")
    return bytes(changed), "; ".join(history)


def mutations(kind: str, rng: random.Random, count: int) -> Iterator[tuple[str, str, bytes]]:
    files = sound(kind)
    victim = next(iter(files))
    for _ in range(count):
        data, history = damaged(files[victim], rng, text=kind == "text")
        yield history, victim, data
