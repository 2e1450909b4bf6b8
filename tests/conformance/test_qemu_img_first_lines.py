"""The lines of qemu-img that people learn first, one after the other, beside the real tool."""

from __future__ import annotations

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
OPTIONS = "compat=1.1,backing_file=vm2.qcow2,backing_fmt=qcow2,encryption=off,cluster_size=64k,preallocation=off"
NAMED = (
    "blkdebug blkverify bochs cloop cow tftp ftps ftp https http dmg nbd parallels qcow qcow2 qed host_cdrom "
    "host_floppy host_device file raw sheepdog vdi vmdk vpc vvfat"
)


def disks(twins: Twins) -> None:
    """A raw disk with something on it, and its compressed copy."""
    twins.same("create -f raw vm2.raw 10M")
    twins.prepare("qemu-io -f raw -c 'write -q -P 7 1M 100k' vm2.raw")
    twins.same("convert -f raw -c -O qcow2 vm2.raw vm2.qcow2")


def test_a_disk_is_made_looked_at_converted_and_grown(twins: Twins) -> None:
    disks(twins)
    twins.same("check vm2.qcow2")
    twins.same("compare -f raw -F qcow2 vm2.raw vm2.qcow2")
    twins.same("resize -f raw vm2.raw +2M")
    for step in ("+2K", "+2M", "+2G", "+1T"):
        twins.same(f"resize vm2.qcow2 {step}")
    assert twins.run_ours(["resize", "vm2.qcow2", "+2GB"]) == (0, "Image resized.\n", "")
    assert twins.virtual_sizes("vm2.qcow2", "qcow2")[1] == (10 << 20) + (2 << 10) + (2 << 20) + (4 << 30) + (1 << 40)


def test_snapshots_are_made_and_gone_back_to_by_id_and_name(twins: Twins) -> None:
    disks(twins)
    twins.same("snapshot -c booting vm2.qcow2")
    twins.prepare("qemu-io -c 'write -q -P 8 1M 100k' vm2.qcow2")
    twins.same("snapshot -c booted vm2.qcow2")
    for wanted in ("1", "booting"):
        twins.same(f"snapshot -a {wanted} vm2.qcow2")
        twins.same("compare -f raw -F qcow2 vm2.raw vm2.qcow2")
    twins.same("snapshot -d booted vm2.qcow2")
    twins.same("check vm2.qcow2")


def test_an_overlay_is_made_with_options_and_put_on_another_base(twins: Twins) -> None:
    disks(twins)
    twins.same(f"create -f qcow2 -o {OPTIONS} ov.qcow2")
    twins.same("rebase -f qcow2 -t writeback -b vm2.raw -F raw ov.qcow2")
    twins.same("rebase -f qcow2 -u -b vm2.qcow2 -F qcow2 ov.qcow2")
    twins.same("compare ov.qcow2 vm2.qcow2")
    twins.same("map --output=json ov.qcow2")


@pytest.mark.parametrize("format", NAMED.split())
def test_every_format_that_is_named_is_known(twins: Twins, format: str) -> None:
    ours = twins.run_ours(["create", "-f", format, "-o", "help"])
    assert (
        "Unknown file format" not in ours.err
        or "Unknown file format" in twins.run_real(["create", "-f", format, "a"]).err
    )
