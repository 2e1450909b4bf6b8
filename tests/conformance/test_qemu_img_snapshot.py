"""qemu-img snapshot beside the real one: what is printed and the exit codes."""

from __future__ import annotations

import re

import pytest

from support.twins import Result, Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def lists(twins: Twins) -> None:
    """Both list the same snapshots, which they made at different moments."""
    found = [
        Result(listed.code, _DATE.sub("DATE", listed.out), listed.err)
        for listed in (twins.run_real(["snapshot", "-l", "a"]), twins.run_ours(["snapshot", "-l", "a"]))
    ]
    assert found[0] == found[1]


def test_snapshots_are_made_applied_and_dropped(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-io -c 'write -P 1 0 128k' a")
    twins.same("snapshot -c one a")
    twins.same("snapshot -c two a")
    twins.same("snapshot -c two a")
    lists(twins)
    twins.same("snapshot -a 1 a")
    twins.same("snapshot -a two a")
    twins.same("snapshot -d two a")
    lists(twins)
    twins.same("snapshot -d two a")
    twins.refused("snapshot -d two a")
    lists(twins)
    assert twins.same("check -q a").code == 0


def test_an_id_names_what_is_dropped_where_no_name_does(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    for name in ("one", "1", "three"):
        twins.prepare(f"qemu-img snapshot -c {name} a")
    twins.same("snapshot -d 1 a")  # the second one
    lists(twins)
    assert twins.run_ours(["snapshot", "-d", "1", "a"]).code == 0
    twins.run_real(["snapshot", "-d", "one", "a"])  # whose own takes names only
    lists(twins)
    twins.refused("snapshot -d 2 a")


@pytest.mark.parametrize("action", ["-a missing", "-d missing"])
def test_a_snapshot_that_is_not_there_is_an_error(twins: Twins, action: str) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.refused(f"snapshot {action} a")


def test_no_snapshot_is_applied_to_an_image_with_bitmaps(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.same("snapshot -c one a")
    twins.prepare("qemu-img bitmap --add a b")
    twins.refused("snapshot -a one a")


@pytest.mark.parametrize("action", ["-c x", "-d x"])
def test_raw_images_have_none(twins: Twins, action: str) -> None:
    twins.truncate("a", 1 << 20)
    twins.refused(f"snapshot {action} a")


@pytest.mark.parametrize("name", ["''", "x" * 300, "日本語"])
def test_names_are_kept_like_qemu_keeps_them(twins: Twins, name: str) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.same(f"snapshot -c {name} a")
    lists(twins)


def test_nothing_is_listed_where_there_is_none(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.truncate("raw", 1 << 20)
    twins.same("snapshot -l a")
    twins.same("snapshot -l raw")
    twins.same("snapshot a")


def test_a_snapshot_brings_its_size_back(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-img snapshot -c small a")
    twins.same("resize a 2M")
    twins.same("snapshot -a small a")
    assert "(1048576 bytes)" in twins.run_ours(["info", "a"]).out


def test_shared_access_cannot_write(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.refused("snapshot -U -c x a")


def test_version_2_images_keep_their_size_with_snapshots(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 -o compat=v2 a 1M")
    twins.prepare("qemu-img snapshot -c x a")
    twins.refused("resize a 2M")


@pytest.mark.parametrize(("field", "value"), [(0, "0000000000400200"), (8, "10000000")], ids=["offset", "size"])
@pytest.mark.parametrize(
    "command", ["snapshot -a s a", "snapshot -d s a", "convert -l s -O raw a b", "amend -o compat=0.10 a", "check a"]
)
def test_a_snapshot_whose_table_makes_no_sense_is_refused_alike(
    twins: Twins, field: int, value: str, command: str
) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 64M")
    twins.prepare("qemu-io -c 'write 0 512' a")
    twins.prepare("qemu-img snapshot -c s a")
    twins.share("a")
    table = int.from_bytes((twins.real / "a").read_bytes()[64:72], "big")
    twins.write("a", bytes.fromhex(value), table + field)
    assert twins.same(command).code


@pytest.mark.parametrize("size", [100, (64 << 20) + 1, (1 << 32) - 1])
def test_a_snapshot_of_no_whole_sectors_is_not_gone_back_to(twins: Twins, size: int) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 64M")
    twins.prepare("qemu-img snapshot -c s a")
    twins.share("a")
    table = int.from_bytes((twins.real / "a").read_bytes()[64:72], "big")
    twins.write("a", size.to_bytes(8, "big"), table + 48)
    twins.refused("snapshot -a s a")


def test_what_is_broken_in_an_image_of_which_no_snapshot_can_be_made_is_told(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 64M")
    twins.prepare("qemu-io -c 'write 0 64k' a")
    twins.share("a")
    image = (twins.real / "a").read_bytes()
    l2 = int.from_bytes(image[(at := int.from_bytes(image[40:48], "big")) : at + 8], "big") & 0xFFFFFFFFFFFE00
    twins.write("a", (1 << 63 | 0x50200).to_bytes(8, "big"), l2)
    real, ours = twins.run_real(["snapshot", "-c", "s", "a"]), twins.run_ours(["snapshot", "-c", "s", "a"])
    first, second = ours.err.splitlines()
    assert (ours.code, first) == (real.code, real.err.splitlines()[-1])
    where = f"Cluster allocation offset 0x50200 unaligned (L2 offset: {l2:#x})"
    assert second == f"{where}; qemu-img check tells what else is broken."
