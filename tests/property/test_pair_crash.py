"""Power cuts where two disks are written: external data files, commit; and rebase, which copies before it switches."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from hostel.block.formats.qcow2.layout import Incompatible
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.img import commit, rebase
from support import qcow2
from support.crash import Version, crash_states, judge_bitmaps, judge_content
from support.crash_disks import Disks, disk_states
from support.external_data import ExternalWorkload, open_external
from support.guest_io import SECTOR, noise
from support.luks import many_volumes
from support.memory import Kind, LoggedDriver, MemoryDriver
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))


@pytest.fixture(autouse=True)
def passphrases() -> Iterator[None]:
    """Those of encrypted images."""
    with many_volumes():
        yield


def logged_workload(rng: random.Random, options: dict[str, Value]) -> tuple[ExternalWorkload, Disks]:
    """A workload on two files that log what is written to them."""
    made: list[Disks] = []

    def make(image: bytes, data: bytes) -> list[LoggedDriver]:
        made.append(Disks(image, data))
        return made[0].drivers

    return ExternalWorkload(rng, make, options=options), made[0]


@pytest.mark.parametrize("seed", range(24 * SOAK))
def test_an_external_data_file_and_its_image_agree_after_a_power_cut(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"external {seed}")
    options: dict[str, Value] = {"cluster_size": rng.choice((512, 4096, 65536)), "data_file": "data.raw"}
    options["lazy_refcounts"] = seed % 4 == 3
    if seed % 3 == 2:
        options |= {"data_file_raw": True, "preallocation": "off"}  # without a backing file
    elif seed % 2:
        options |= {"encrypt.format": rng.choice(("aes", "luks")), "encrypt.key-secret": "first"}
    workload, pair = logged_workload(rng, options)
    versions = [Version(0, len(pair.log), bytes(workload.content), {}, {})]
    history = []
    for _ in range(rng.randrange(5, 20)):
        start, flushed = len(pair.log), workload.flushed
        history.append(workload.step())
        workload.verify()
        # An operation that had nothing to do has synced nothing.
        syncs = [at for at in range(start, len(pair.log)) if pair.log[at][1].kind is Kind.FLUSH]
        durable = syncs[-1] + 1 if syncs and workload.flushed is not flushed else None
        versions.append(Version(start, durable, bytes(workload.content), {}, dict(workload.bitmaps)))
    workload.node.close()
    for state in disk_states(pair, rng):
        if state.reached < (versions[0].durable or 0):
            continue
        tried["disks after power cuts"] += 1
        safe = max(at for at, each in enumerate(versions) if each.durable is not None and each.durable <= state.reached)
        allowed = [versions[safe]] + [each for each in versions[safe + 1 :] if each.start < state.reached]
        try:
            judge_external(state.disks, allowed, workload.backing, raw=bool(options.get("data_file_raw")))
        except BaseException as error:
            error.add_note(f"{options} {history}, after {state.reached} entries")
            raise


def judge_external(disks: tuple[bytes, ...], allowed: list[Version], backing: bytes | None, *, raw: bool) -> None:
    """The image opens for reading and for writing, is sound, and reads what it must; raw data reads the same."""
    with open_external(*map(MemoryDriver, disks), backing=backing, read_only=True) as node:
        content = bytes(node.read(0, node.length))
        judge_content(content, allowed)
        judge_bitmaps(node, content, allowed)
    image, data = map(MemoryDriver, disks)
    with open_external(image, data, backing=backing) as node:
        assert node.read(0, node.length) == content
        if content:
            node.pwrite(0, b"after the power cut".ljust(SECTOR))
    result, lines, _ = qcow2.check(image.data)
    assert qcow2.faults(result) == (0, 0), lines
    if raw:
        with open_external(image, data, read_only=True) as node:
            guest = bytes(node.read(0, node.length))
        # What the image says is zeroes may be seen through the file before the zeroes are there, not afterwards.
        differing = [
            at for at in range(0, len(guest), SECTOR) if guest[at : at + SECTOR] != data.data[at : at + SECTOR]
        ]
        assert all(guest[at : at + SECTOR] in each.content for at in differing for each in allowed[:1])


@pytest.mark.parametrize("seed", range(12 * SOAK))
def test_a_commit_that_is_cut_off_changes_nothing_that_the_guest_reads(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"commit {seed}")
    size = rng.choice((40, 150)) * 512
    below = rng.choice((size, size // 1024 * 512, size + 4096))
    base = prepared(rng, {"cluster_size": rng.choice((512, 4096)), "lazy_refcounts": seed % 4 == 3}, below)
    overlay_options: dict[str, Value] = {"cluster_size": rng.choice((512, 1024, 4096)), "backing_file": "base"}
    pair = Disks(qcow2.create(size, overlay_options), base)
    with stacked(*pair.drivers) as node:
        for _ in range(rng.randrange(1, 12)):
            at = rng.randrange(size // SECTOR) * SECTOR
            length = min(rng.choice((SECTOR, 4096, 20 * SECTOR)), size - at)
            if rng.random() < 0.6:
                node.pwrite(at, noise(rng, length))
            else:
                node.write_zeroes(at, length, unmap=rng.random() < 0.5)
        content = bytes(node.read(0, node.length))
    pair = Disks(*(bytes(each.data) for each in pair.drivers))
    with stacked(*pair.drivers) as node:
        commit.commit(node, 1)
        assert node.read(0, node.length) == content
    for state in disk_states(pair, rng):
        tried["disks after power cuts"] += 1
        overlay, lower = map(MemoryDriver, state.disks)
        with stacked(overlay, lower) as node:
            assert node.read(0, node.length) == content, f"after {state.reached} of {len(pair.log)} entries"
        for driver in (overlay, lower):
            result, lines, _ = qcow2.check(driver.data)
            assert qcow2.faults(result) == (0, 0), lines


def prepared(rng: random.Random, options: dict[str, Value], size: int) -> bytes:
    """An image with something in it."""
    driver = MemoryDriver(qcow2.create(size, options))
    with qcow2.attach(driver) as node:
        for _ in range(4):
            at = rng.randrange(size // SECTOR) * SECTOR
            node.pwrite(at, noise(rng, min(4096, size - at)))
    return bytes(driver.data)


def stacked(overlay: MemoryDriver, base: MemoryDriver) -> BlockNode:
    """An overlay on its base, both open for writing."""
    node = qcow2.attach(overlay)
    node.driver.children["backing"] = qcow2.attach(base)
    return node


@pytest.mark.parametrize("seed", range(12 * SOAK))
def test_a_rebase_that_is_cut_off_changes_nothing_that_the_guest_reads(seed: int, tried: Counter[str]) -> None:
    rng = random.Random(f"rebase {seed}")
    size = rng.choice((40, 150)) * 512
    bases: dict[str | None, bytes | None] = {"old": noise(rng, size), None: None}
    if rng.random() < 0.7:
        other = bytearray(bases["old"] or b"")
        for _ in range(3):
            at = rng.randrange(size // SECTOR) * SECTOR
            other[at : at + 8 * SECTOR] = noise(rng, len(other[at : at + 8 * SECTOR]))
        bases = {
            "old": bases["old"],
            "x" * rng.choice((3, 500)): bytes(other[: rng.choice((size, size // 1024 * 512))]),
        }
    options: dict[str, Value] = {"cluster_size": rng.choice((4096, 65536)), "backing_file": "old", "backing_fmt": "raw"}
    options["lazy_refcounts"] = seed % 4 == 3
    driver = LoggedDriver(qcow2.create(size, options))
    with qcow2.attach(driver, backing=bases["old"]) as node:
        for _ in range(rng.randrange(8)):
            at = rng.randrange(size // SECTOR) * SECTOR
            node.pwrite(at, noise(rng, min(4096, size - at)))
        content = bytes(node.read(0, node.length))
    driver = LoggedDriver(driver.data)
    initial, (_, name) = bytes(driver.data), bases
    with qcow2.attach(driver, backing=bases["old"]) as node:
        below = bases[name]
        rebase.rebase(node, None if below is None else qcow2.disk(below))
        rebase.change_backing(node, name, "raw" if name else None)
    for state in crash_states(initial, driver.log, rng, samples=4):
        tried["disks after power cuts"] += 1
        image = MemoryDriver(state.data)
        with qcow2.attach(image) as node:
            named = next((each.filename for each in node.driver.references()), None)
            backing = bases[named]
            if backing is not None:
                node.driver.children["backing"] = qcow2.disk(backing)
            assert node.read(0, node.length) == content
        result, lines, _ = qcow2.check(image.data)
        assert qcow2.faults(result) == (0, 0), lines
        assert not qcow2.header(image.data).incompatible_features & Incompatible.DIRTY
