"""qemu-img create beside the real one: what is printed, refused and written."""

from __future__ import annotations

import pytest

from support.twins import Twins

pytestmark = pytest.mark.requires_tool("qemu-img")


@pytest.mark.parametrize(
    "command",
    [
        "a 1M",
        "a 1.5G",
        "a 0x100",
        "a 0",
        "a 100b",
        "a 513",
        "a -o size=1k",
        "-q a 1M",
        "a 1M -o preallocation=full",
        "a 1M -o preallocation=falloc -o extent_size_hint=3M",
        "a 1M -o nocow=on",
        "a 1M -o help",
        "-o help",
        "-o size=1,help",
        "-f qcow2 a 1M",
        "-f qcow2 a 0",
        "-f qcow2 a 513",
        "-f qcow2 a 1P",
        "-f qcow2 a 1M -o help",
        "-f qcow2 -o help",
        "-f qcow2 -o '?'",
        "-f qcow2 -b b -F raw -u a 1M",
        "-f qcow2 -b nbd://host/x -F raw -u a 1M",
        "-f qcow2 a 1M -o compression_type=zstd",
        "-f qcow2 a 1M -o compat=0.10",
        "-f qcow2 a 1M -o compat=v2",
        "-f qcow2 a 1M -o lazy_refcounts",
        "-f qcow2 a 1M -o nolazy_refcounts",
        "-f qcow2 a 1M -o lazy_refcounts=true,extended_l2=n",
        "-f qcow2 a 1M -o lazy_refcounts=on -o refcount_bits=1,cluster_size=512",
        "-f qcow2 a 1M -o cluster_size=2M,refcount_bits=64",
        "-f qcow2 a 1M -o preallocation=metadata",
        "-f qcow2 a 1M -o preallocation=falloc,cluster_size=512",
        "-f qcow2 a 1M -o preallocation=full",
        "-f qcow2 a 1M -o extended_l2=on",
    ],
)
def test_an_image_is_created_as_qemu_creates_it(twins: Twins, command: str) -> None:
    twins.same(f"create {command}")
    real, ours = twins.real / "a", twins.ours / "a"
    assert ours.exists() == real.exists()
    # Where metadata lies is our own choice once there is more of it than an empty image has.
    if real.exists() and "preallocation" not in command and " a 0" not in command:
        assert ours.stat().st_size == real.stat().st_size
        assert ours.stat().st_size > 64 << 20 or ours.read_bytes() == real.read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        "-f foo a 1M",
        "-f foo -o help",
        "a 1M -o foo=1",
        "a 1M -o size=1",
        "a 1M -o nocow=maybe",
        "a 1M -o nocow",
        "a 1M -o preallocation=foo",
        "a 1M -o preallocation=metadata",
        "a 1M -o extent_size_hint=8G",
        "a 1M -o extent_size_hint=x",
        "-f raw -b b a 1M",
        "-f raw -F raw a 1M",
        "-f raw missing/a 1M",
        "-f qcow2 a",
        "-f qcow2 -b '' a",
        "-f qcow2 -b a a",
        "-f qcow2 -b missing a 1M",
        "-f qcow2 -b missing -F raw a 1M",
        "-f qcow2 -b missing -u a 1M",
        "-f qcow2 -b missing -F raw -u a",
        "-f qcow2 -F raw a 1M",
        "-f qcow2 -F foo a 1M",
        "-f qcow2 -b missing -F foo -u a 1M",
        "-f qcow2 a 1M -o cluster_size=3",
        "-f qcow2 a 1M -o cluster_size=256",
        "-f qcow2 a 1M -o cluster_size=4M",
        "-f qcow2 a 1M -o compat=3",
        "-f qcow2 a 1M -o compat=v2,lazy_refcounts=on",
        "-f qcow2 a 1M -o compat=v2,refcount_bits=8",
        "-f qcow2 a 1M -o compat=v2,compression_type=zstd",
        "-f qcow2 a 1M -o refcount_bits=7",
        "-f qcow2 a 1M -o refcount_bits=128",
        "-f qcow2 a 1M -o refcount_bits=x",
        "-f qcow2 a 1M -o compression_type=foo",
        "-f qcow2 a 1M -o preallocation=foo",
        "-f qcow2 a 1M -o extended_l2=on,cluster_size=4k",
        "-f qcow2 a 1M -o data_file_raw=on",
        "-f qcow2 a 1M -o data_file=",
        "-f qcow2 a 1M -o compat=",
        "-f qcow2 a 1M -o compression_type=",
        "-f qcow2 a 3E",
        "-f qcow2 a 3E -o cluster_size=2M",
    ],
)
def test_what_cannot_be_created_is_refused_and_leaves_no_file(twins: Twins, command: str) -> None:
    twins.refused(f"create {command}")
    assert not (twins.ours / "a").exists()


@pytest.mark.parametrize("name", ["d", "file:d", "./d"])
def test_a_data_file_may_be_named_with_its_protocol(twins: Twins, name: str) -> None:
    twins.prepare("cp /dev/null d")
    twins.same(f"create -f qcow2 -o data_file={name} a 1M")
    twins.same("info a")
    assert (twins.ours / "d").stat().st_size == 1 << 20


def test_a_refusal_leaves_an_existing_image_alone(twins: Twins) -> None:
    # QEMU deletes the file here; an image that somebody meant to keep is worth more than that.
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    before = (twins.ours / "a").read_bytes()
    twins.same("create -f qcow2 -o cluster_size=3 a 1G")
    assert (twins.ours / "a").read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [
        "-f qcow2 -b b -F raw a",
        "-f qcow2 -b b -F raw a 1M",
        "-f qcow2 -b b -F raw a 4M",
        "-f qcow2 -o backing_file=b,backing_fmt=raw a",
        "-f qcow2 -b q -F qcow2 a",
        "-f qcow2 -b q -F qcow2 d/a",
        "-f qcow2 -b ../q -F qcow2 d/a",
        "-f qcow2 -b 'c,c' -F raw a",
        "-f qcow2 -b b -F qcow2 a",
        "-f qcow2 -b b -F foo a",
        "-f qcow2 -b b -F raw -o preallocation=metadata a",
    ],
)
def test_the_backing_file_is_looked_at(twins: Twins, command: str) -> None:
    twins.prepare("qemu-img create -q -f qcow2 q 3M")
    twins.prepare("mkdir d")
    twins.truncate("b", 2 << 20)
    twins.truncate("c,c", 2 << 20)
    twins.same(f"create {command}")
    for path in (twins.real / "a", twins.real / "d" / "a"):
        if path.exists():
            assert (twins.ours / path.relative_to(twins.real)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        "create -u -b b -F '' -f qcow2 a 1M",
        "create -F '' -f qcow2 a 1M",
        "create -u -b b -f qcow2 -o backing_fmt=,preallocation=x a 1M",
        "create -u -b b -F '' -f qed a 1M",
        "create -F no -f qed -o cluster_size=1 a 1M",
        "create -u -b b -F '' -f qcow a 1M",
        "create -u -b b -F '' -f vmdk a 1M",
        "convert -F '' -O qcow2 b a",
        "convert -B b -F '' -O qcow2 b a",
        "convert -B b -o backing_fmt= -O qed b a",
        "convert -F '' -O qcow b a",
    ],
)
def test_no_name_is_no_format_of_a_backing_file(twins: Twins, command: str) -> None:
    twins.truncate("b", 2 << 20)
    result = twins.same(command)
    assert result.code == 1
    assert not (twins.ours / "a").exists()


def test_a_backing_file_needs_its_format(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 q 3M")
    ours = twins.run_ours(["create", "-f", "qcow2", "-b", "q", "a"])
    # QEMU forgets the end of the last line.
    assert ours.err == "qemu-img: a: Backing file specified without backing format\nDetected format of qcow2.\n"
    assert (ours.code, ours.out) == (1, "")
    assert not (twins.ours / "a").exists()


def test_sizes_with_two_letters_are_understood(twins: Twins) -> None:
    # People type them; QEMU does not understand them.
    assert twins.run_ours(["create", "a", "2GB"]).out == "Formatting 'a', fmt=raw size=2147483648\n"
