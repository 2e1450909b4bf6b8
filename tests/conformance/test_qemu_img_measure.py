"""qemu-img measure beside the real one."""

from __future__ import annotations

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
CLUSTERS = ("512", "4k", "64k", "2M")


@pytest.mark.parametrize("size", ["0", "1", "513", "1M", "1G", "64T"])
@pytest.mark.parametrize("cluster_size", CLUSTERS)
def test_an_empty_image_is_measured(twins: Twins, size: str, cluster_size: str) -> None:
    twins.same(f"measure -O qcow2 -o cluster_size={cluster_size} --size {size}")


@pytest.mark.parametrize(
    "options",
    [
        "refcount_bits=1",
        "refcount_bits=64",
        "extended_l2=on",
        "encrypt.format=aes",
        "compat=0.10,lazy_refcounts=on",
        "preallocation=full",
        "preallocation=metadata",
    ],
)
def test_options_count(twins: Twins, options: str) -> None:
    twins.same(f"measure -O qcow2 -o {options} --size 10G")
    twins.same(f"measure -O qcow2 -o {options} --size 10G --output=json")


@pytest.mark.parametrize(
    "command",
    [
        "-O foo --size 1",
        "-O qcow2 -o foo=1 --size 1",
        "-O qcow2 -o cluster_size=x --size 1",
        "-O qcow2 -o cluster_size=3 --size 1",
        "-O qcow2 -o extended_l2=on,cluster_size=4k --size 1",
        "-O qcow2 --size 5E",
        "-O qcow2 -o preallocation=foo --size 1",
        "-O qcow2 -o compat=foo --size 1",
        "-O qcow2 -o compat=0.10,refcount_bits=8 --size 1",
        "-O vmdk --size 1M",
        "-O vmdk -o foo=1 --size 1M",
        "-l x --size 1",
        "missing",
        "-l x raw",
        "-l x qcow2",
        "-l snapshot.id=x qcow2",
        "-l snapshot.foo=x qcow2",
    ],
)
def test_what_cannot_be_measured_is_refused(twins: Twins, command: str) -> None:
    twins.truncate("raw", 1 << 20)
    twins.prepare("qemu-img create -q -f qcow2 qcow2 1M")
    twins.refused(f"measure {command}")


@pytest.mark.parametrize("cluster_size", CLUSTERS)
def test_the_data_of_an_image_counts_in_whole_clusters(twins: Twins, cluster_size: str) -> None:
    twins.truncate("a", 3 << 20)
    for offset, length in ((100 << 10, 1024), (300 << 10, 300 << 10), (2 << 20, 1024)):
        twins.write("a", b"x" * length, offset)
    twins.same(f"measure -O qcow2 -o cluster_size={cluster_size} -f raw a")
    twins.same(f"measure -O qcow2 -o cluster_size={cluster_size},backing_file=b,backing_fmt=raw -f raw a")
    twins.same("measure -f raw a")


def test_a_chain_is_measured_as_a_whole(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-io -c 'write 0 100k' a")
    twins.prepare("qemu-img create -q -f qcow2 -b a -F qcow2 b 2M")
    twins.prepare("qemu-io -c 'write 200k 100k' b")
    twins.same("measure -O qcow2 b")
    twins.same("measure -O qcow2 -o cluster_size=512 b")


@pytest.mark.parametrize(
    "snapshot", ["s", "t", "1", "snapshot.id=1", "snapshot.name=t", "snapshot.id=2,snapshot.name=t"]
)
def test_a_snapshot_is_measured(twins: Twins, snapshot: str) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-img snapshot -c s a")
    twins.prepare("qemu-io -c 'write 0 100k' a")
    twins.prepare("qemu-img snapshot -c t a")
    twins.prepare("qemu-io -c 'write 512k 100k' a")
    twins.same(f"measure -O qcow2 -l {snapshot} a")


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_bitmaps_are_told_where_both_images_may_have_them(twins: Twins, compat: str) -> None:
    twins.prepare(f"qemu-img create -q -f qcow2 -o compat={compat} a 1M")
    twins.same("measure -O qcow2 a")
    twins.same("measure -O qcow2 --output=json a")
    twins.same("measure -O qcow2 -o compat=0.10 a")
    twins.same("measure -O raw a")
