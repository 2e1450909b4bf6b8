"""qemu-img info beside the real one."""

from __future__ import annotations

import pytest

from support import hostile
from support.twins import Twins

pytestmark = pytest.mark.requires_tool("qemu-img")
FORMS = ("", "--output=json", "--backing-chain", "--backing-chain --output=json")


def in_every_form(twins: Twins, name: str) -> None:
    for form in FORMS:
        twins.same(f"info {form} {name}")


@pytest.mark.parametrize(
    "options",
    [
        "refcount_bits=16",
        "compat=v2",
        "compat=v2,cluster_size=512",
        "compression_type=zstd,lazy_refcounts=on,refcount_bits=1,cluster_size=512",
        "extended_l2=on",
        "preallocation=full",
    ],
)
def test_qcow2_images_are_described(twins: Twins, options: str) -> None:
    twins.prepare(f"qemu-img create -q -f qcow2 -o size=1M,{options} a")
    in_every_form(twins, "a")


@pytest.mark.parametrize("size", [0, 1, 100, 512, 1 << 20, 1000 * 1024 - 1, 1000 << 10, 5 << 30, (1 << 40) + 512])
def test_raw_images_are_described(twins: Twins, size: int) -> None:
    twins.truncate("a", size)
    in_every_form(twins, "a")


def test_snapshots_are_listed(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    for name in ("first", "'with space'", "'a name that is longer than its column'", "日本語"):
        twins.prepare(f"qemu-img snapshot -c {name} a")
    twins.share("a")
    twins.same("info --output=json a")
    twins.same("snapshot -l a")
    twins.same("snapshot -ql a")


def test_a_chain_is_followed(twins: Twins) -> None:
    twins.prepare("mkdir d")
    twins.truncate("base", 1 << 20)
    twins.prepare("qemu-img create -q -f qcow2 -b ../base -F raw d/middle")
    twins.prepare("qemu-img create -q -f qcow2 -b d/middle -F qcow2 top 2M")
    in_every_form(twins, "top")
    in_every_form(twins, "file:top")


@pytest.mark.parametrize("backing", ["missing", "/missing/file", "nbd://host/x", "foo:bar"])
def test_a_backing_file_that_is_not_there_is_named(twins: Twins, backing: str) -> None:
    twins.prepare(f"qemu-img create -q -f qcow2 -u -b {backing} -F raw a 1M")
    twins.same("info a")
    twins.same("info --output=json a")


def test_a_missing_end_of_the_chain_is_an_error(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 -u -b missing -F qcow2 a 1M")
    twins.refused("info --backing-chain a")


def test_a_loop_in_the_chain_is_an_error(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 -u -b b -F qcow2 a 1M")
    twins.prepare("qemu-img create -q -f qcow2 -u -b a -F qcow2 b 1M")
    twins.refused("info --backing-chain a")


@pytest.mark.parametrize("name", ['json:{"driver":"nosuch"}', "json:{", 'json:{"driver":"raw"}', "nbd:x"])
def test_a_backing_files_name_that_makes_no_sense_is_told_as_such(twins: Twins, name: str) -> None:
    twins.write("middle", hostile.naming(name.encode()))
    twins.write("top", hostile.naming(b"middle"))
    for image in ("middle", "top"):
        twins.same(f"info {image}")
        twins.refused(f"info --backing-chain {image}")
        twins.refused(f"map {image}")


def test_a_backing_file_may_be_described_by_json(twins: Twins) -> None:
    twins.truncate("base", 1 << 20)
    twins.prepare(
        "qemu-img create -q -f qcow2 -F raw -u a 1M "
        """-b 'json:{"driver":"raw","file":{"driver":"file","filename":"base"}}'"""
    )
    in_every_form(twins, "a")


@pytest.mark.parametrize("command", ["missing", ".", "''", "-f foo .", "-f qcow2 raw", "-f qcow2 tiny"])
def test_what_cannot_be_opened_is_refused(twins: Twins, command: str) -> None:
    twins.truncate("raw", 1 << 20)
    twins.truncate("tiny", 3)
    twins.refused(f"info {command}")


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (7, b"\x07"),  # version
        (20, b"\x00\x00\x00\x20"),  # cluster bits
        (24, b"\x7f\xff\xff\xff\xff\xff\xff\xff"),  # size
        (36, b"\xff\xff\xff\xff"),  # L1 entries
        (40, b"\x00\x00\x00\x00\x00\x03\x00\x01"),  # L1 offset
        (72, b"\x40"),  # an incompatible feature that nobody knows
        (79, b"\x02"),  # corrupt
        (95, b"\x02"),  # a raw data file where none is named
        (99, b"\x07"),  # refcount order
        (100, b"\x00\x00\x00\x10"),  # header length
    ],
)
def test_malformed_headers_end_in_one_line(twins: Twins, offset: int, data: bytes) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.write("a", data, offset)
    twins.same("info a")


@pytest.mark.parametrize("prefix", ["file:", "./", "file:./"])
def test_colons_in_a_name_are_told_from_protocols(twins: Twins, prefix: str) -> None:
    twins.prepare("qemu-img create -q -f qcow2 base 1M")
    twins.prepare("qemu-img create -q -f qcow2 -b base -F qcow2 ./image:top")
    told = twins.same(f"info {prefix}image:top")
    assert "(actual path: ./base)" in told.out
