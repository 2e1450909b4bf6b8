"""A Sheepdog server that answers noise, and names of noise: an error or sense, and that soon."""

from __future__ import annotations

import contextlib
import os
import random
import time

import pytest

from hostel.block.driver import OpenMode
from hostel.block.options import OptionError
from hostel.block.protocols.rbd import name as rbd
from hostel.block.protocols.sheepdog import address
from hostel.block.protocols.sheepdog.driver import SheepdogDriver
from hostel.errors import BlockError
from support import sheepdog
from support.sheepdog import SheepdogServer, running

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
MIB = 1 << 20
ROUNDS = 40 * SOAK


def damaged(reply: bytes, rng: random.Random) -> bytes | None:
    """A reply with other bytes, cut off, longer, or none."""
    kind = rng.randrange(6)
    if kind == 0:
        return None
    changed = bytearray(reply)
    if kind == 1:
        return bytes(changed[: rng.randrange(len(changed))]) + b"\0" * rng.choice((0, 3, 5000))
    # What counts lies in the header, and in the first bytes of an inode.
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(min(len(changed), rng.choice((20, 48, 48 + 568, 5000))))
        changed[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_answers_of_noise(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        server = SheepdogServer()
        server.create("disk", 3 * MIB)
        server.leaves = False
        chosen = rng.choice((sheepdog.LOCK, sheepdog.READ, sheepdog.READ, sheepdog.WRITE, sheepdog.CREATE_AND_WRITE))
        after = rng.randrange(4)

        def change(op: int, reply: bytes, server: SheepdogServer = server, chosen: int = chosen) -> bytes | None:
            nonlocal after
            if op != chosen or after:
                after -= op == chosen
                return reply
            server.leaves = True
            return damaged(reply, rng)

        server.tamper = change
        begun = time.monotonic()
        with running(server) as port:
            options = address.parse_filename(f"sheepdog://127.0.0.1:{port}/disk")
            try:
                driver = SheepdogDriver.open(options, OpenMode(read_only=False), timeout=2)
                try:
                    driver.pwrite(MIB // 2, memoryview(b"x" * MIB))
                    driver.pread(0, memoryview(bytearray(3 * MIB)))
                    list(driver.extents(0, 3 * MIB))
                finally:
                    driver.close()
            except BlockError:
                pass
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("seed", range(4))
def test_names_of_noise(seed: int) -> None:
    rng = random.Random(seed)
    words = (
        "sheepdog",
        "+unix",
        "+tcp",
        "rbd",
        ":",
        "//",
        "/",
        "@",
        "#",
        "?",
        "socket=",
        "=",
        "\\",
        "%",
        "%zz",
        "[",
        "]",
        *("x", "0", "7000", "99999999999999999999", "\udcff", "\u0660", " "),
    )
    for _ in range(1000 * SOAK):
        text = "".join(rng.choices(words, k=rng.randrange(12)))
        with contextlib.suppress(OptionError):
            rbd.parse(f"rbd:{text}")
        try:
            options = address.parse_filename(f"sheepdog:{text}")
            disk = address.disk(SheepdogDriver.converted(options))
        except OptionError:
            continue
        # What it is called leads to it again.
        assert address.disk(SheepdogDriver.converted(address.parse_filename(str(disk)))) == disk
