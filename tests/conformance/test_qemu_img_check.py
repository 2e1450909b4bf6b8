"""qemu-img check beside the real one: what is printed and the exit code; which errors are found has its own tests."""

from __future__ import annotations

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
REFCOUNTS = 2 * 65536  # where the first refcount block of a fresh image is
SNAPSHOT_COUNT = 60  # where the header has it; the table's place is behind it
EXTRA_DATA_SIZE = 36  # where a snapshot's entry has it


def both_forms(twins: Twins, words: str) -> None:
    twins.same(f"check {words}")
    twins.same(f"check --output=json {words}")


@pytest.mark.parametrize("size", ["0", "1M", "3G"])
def test_an_empty_image_is_clean(twins: Twins, size: str) -> None:
    twins.prepare(f"qemu-img create -q -f qcow2 a {size}")
    both_forms(twins, "a")
    twins.same("check -q a")
    twins.same("check -r all a")


def test_allocated_fragmented_and_compressed_clusters_are_counted(twins: Twins) -> None:
    twins.write("raw", b"spam" * 200_000)
    twins.prepare("qemu-img convert -f raw -O qcow2 -c raw a")
    twins.prepare("qemu-io -c 'write 128k 64k' -c 'write 0 64k' -c 'write 300k 64k' a")
    both_forms(twins, "a")


def test_leaks_are_found_and_given_back(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.truncate("a", 10 * 65536)
    twins.write("a", b"\x00\x01", REFCOUNTS + 2 * 8)
    both_forms(twins, "a")
    assert twins.same("check -q a").code == 3
    twins.same("check -r leaks a")
    assert twins.same("check a").code == 0


def test_corruption_is_found_and_repaired(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-io -c 'write 0 256k' a")
    twins.write("a", b"\x00\x00", REFCOUNTS + 2 * 5)
    both_forms(twins, "a")
    assert twins.same("check -q a").code == 2


def test_a_repair_is_told_in_json(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.truncate("a", 10 * 65536)
    twins.write("a", b"\x00\x01", REFCOUNTS + 2 * 8)
    twins.same("check --output=json -r all a")


def test_refcounts_that_must_be_rebuilt_are_an_error_for_leaks_alone(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-io -c 'write 0 256k' a")
    twins.write("a", b"\x00\x00\x00\x00", REFCOUNTS + 2 * 3)
    twins.refused("check -r leaks a")


def test_a_format_without_checks_has_its_own_exit_code(twins: Twins) -> None:
    twins.truncate("a", 1 << 20)
    assert twins.refused("check -f raw a").code == 63
    assert twins.refused("check -r all -f raw a").code == 63
    assert twins.refused("check --output=json a").code == 63


@pytest.mark.parametrize("command", ["missing", "-f qcow2 raw", "-T foo raw", "--output=foo raw"])
def test_what_cannot_be_checked_is_refused(twins: Twins, command: str) -> None:
    twins.truncate("raw", 1 << 20)
    assert twins.refused(f"check {command}").code == 1


def test_an_image_marked_corrupt_is_checked_and_repaired(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.write("a", b"\x02", 79)
    twins.same("check a")
    twins.same("check -r all a")
    twins.same("info a")


def snapshot_table(twins: Twins) -> int:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-img snapshot -c s a")
    twins.share("a")
    return int.from_bytes((twins.real / "a").read_bytes()[SNAPSHOT_COUNT + 4 : SNAPSHOT_COUNT + 12], "big")


@pytest.mark.parametrize("size", [2000, 65536])
def test_a_snapshot_with_too_much_extra_data_stops_the_check_and_is_cut(twins: Twins, size: int) -> None:
    place = snapshot_table(twins)
    twins.truncate("a", 1 << 20)
    twins.write("a", size.to_bytes(4, "big"), place + EXTRA_DATA_SIZE)
    assert twins.same("check a").code == 1
    twins.same("check -r all a")
    assert twins.same("check a").code == 0


def test_too_many_snapshots_stop_the_check(twins: Twins) -> None:
    snapshot_table(twins)
    twins.truncate("a", 4 << 20)
    twins.write("a", (65536 + 3).to_bytes(4, "big"), SNAPSHOT_COUNT)
    assert twins.same("check a").code == 1
    assert twins.same("check -r leaks a").code == 1
