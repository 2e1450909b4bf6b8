"""qemu-img compare beside the real one: what it says, and its five exit codes."""

from __future__ import annotations

import random

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]

MIB = 1 << 20
DATA = random.Random(2).randbytes(5 * MIB)


@pytest.fixture
def images(twins: Twins) -> Twins:
    """``raw``, ``qcow2`` and ``packed`` with one content, and ``longer`` with zeroes after it."""
    twins.write("raw", DATA)
    twins.prepare("qemu-img convert -f raw -O qcow2 raw qcow2")
    twins.prepare("qemu-img convert -c -f raw -O qcow2 raw packed")
    twins.prepare("qemu-img convert -f raw -O qcow2 raw longer")
    twins.prepare("qemu-img resize -q longer 8M")
    return twins


@pytest.mark.parametrize("flags", ["", "-q", "-U", "-T none", "-T writeback"])
def test_same_content_in_any_format(images: Twins, flags: str) -> None:
    for first, second in (("raw", "qcow2"), ("qcow2", "packed"), ("packed", "raw"), ("raw", "raw")):
        formats = f"-f {'raw' if first == 'raw' else 'qcow2'} -F {'raw' if second == 'raw' else 'qcow2'}"
        assert images.same(f"compare {flags} {formats} {first} {second}").code == 0
    assert images.same(f"compare {flags} raw qcow2").code == 0


@pytest.mark.parametrize("offset", [0, 513, 2 * MIB - 1, 2 * MIB, 4 * MIB + 100, 5 * MIB - 1])
def test_first_difference_is_told(images: Twins, offset: int) -> None:
    images.write("other", DATA[:offset] + bytes([DATA[offset] ^ 1]) + DATA[offset + 1 :])
    for image in ("raw", "qcow2", "packed"):
        assert images.same(f"compare -F raw {image} other").code == 1
        assert images.same(f"compare -f raw other {image}").code == 1
    assert images.same("compare -q -f raw -F raw raw other").out == ""


@pytest.mark.parametrize("order", ["raw longer", "longer raw"])
def test_longer_image_differs_only_by_data(images: Twins, order: str) -> None:
    assert images.same(f"compare {order}").code == 0
    assert images.same(f"compare -s {order}").code == 1
    images.prepare("qemu-io -f qcow2 -c 'write -q -z 6M 64k' longer")
    assert images.same(f"compare {order}").code == 0
    images.prepare("qemu-io -f qcow2 -c 'write -q -P 1 7M 512' longer")
    assert images.same(f"compare {order}").code == 1


def test_strict_comparison_wants_the_same_allocation(images: Twins) -> None:
    images.prepare("qemu-img create -q -f qcow2 one 4M")
    images.prepare("qemu-img create -q -f qcow2 other 4M")
    assert images.same("compare -s one other").code == 0
    images.prepare("qemu-io -f qcow2 -c 'write -q -z 1M 64k' one")
    assert images.same("compare one other").code == 0
    assert images.same("compare -s one other").code == 1
    images.prepare("qemu-io -f qcow2 -c 'write -q -P 0 1M 64k' other")
    assert images.same("compare -s one other").code == 1
    images.prepare("qemu-io -f qcow2 -c 'write -q -P 0 1M 64k' one")
    assert images.same("compare -s one other").code == 0
    assert images.same("compare -q -s one qcow2").code == 1
    images.write("text", b"text" * MIB)
    images.prepare("qemu-img convert -f raw -O qcow2 text plain")
    images.prepare("qemu-img convert -c -f raw -O qcow2 text packed")
    assert images.same("compare plain packed").code == 0
    assert images.same("compare -s plain packed").code == 1


def test_data_that_differs_before_a_status_does_is_told_first(images: Twins) -> None:
    for name, pattern, length in (("one", 1, "64k"), ("other", 2, "128k")):
        images.prepare(f"qemu-img create -q -f qcow2 {name} 4M")
        images.prepare(f"qemu-io -f qcow2 -c 'write -q -P {pattern} 0 {length}' {name}")
    assert images.same("compare -s one other").out.startswith("Content mismatch")
    images.prepare("qemu-io -f qcow2 -c 'write -q -P 2 0 64k' one")
    assert images.same("compare -s one other").out.startswith("Strict mode: Offset 65536")


def test_overlay_is_compared_with_what_it_shows(images: Twins) -> None:
    images.prepare("qemu-img create -q -f qcow2 -b raw -F raw top 6M")
    assert images.same("compare top raw").code == 0
    images.prepare("qemu-io -f qcow2 -c 'write -q -z 1M 1M' top")
    assert images.same("compare top raw").code == 1
    images.prepare("qemu-img create -q -f qcow2 -b top -F qcow2 upper")
    assert images.same("compare top upper").code == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("compare", 1),
        ("compare raw", 1),
        ("compare raw raw raw", 1),
        ("compare raw nothing", 2),
        ("compare nothing raw", 2),
        ("compare -f qcow2 raw qcow2", 2),
        ("compare -F nothing raw qcow2", 2),
        ("compare -T nothing raw qcow2", 2),
        ("compare --image-opts -f raw driver=raw,file.filename=raw raw", 2),
        ("compare -x raw raw", 1),
        ("compare -f", 1),
    ],
)
def test_mistakes_have_their_exit_codes(images: Twins, command: str, code: int) -> None:
    assert images.refused(command).code == code


def test_damaged_image_ends_with_4(images: Twins) -> None:
    data = (images.ours / "packed").read_bytes()
    l1 = int.from_bytes(data[40:48], "big")
    l2 = int.from_bytes(data[l1 : l1 + 8], "big") & 0x00FFFFFFFFFFFE00
    # The 40th cluster is compressed, and lies where nothing is.
    images.write("packed", (0x40F0000007FFF000).to_bytes(8, "big"), l2 + 8 * 40)
    for command in ("compare packed raw", "compare raw packed"):
        words = command.split()
        expected, found = images.run_real(words), images.run_ours(words)
        assert (found.code, found.out) == (expected.code, expected.out) == (4, "")
        assert found.err.splitlines()[0] == expected.err.splitlines()[-1]


def test_progress_goes_from_nothing_to_all(images: Twins) -> None:
    found = images.run_ours(["compare", "-p", "raw", "qcow2"])
    assert found.out.startswith("    (0.00/100%)\r")
    assert found.out.endswith("    (100.00/100%)\rImages are identical.\n\n")
    assert images.run_real(["compare", "-p", "raw", "qcow2"]).out.endswith("Images are identical.\n\n")
    assert images.same("compare -p -q raw qcow2").out == ""


@pytest.mark.parametrize("second", ["empty", "larger"])
def test_progress_comes_to_its_end_over_zeroes_that_need_no_reading(twins: Twins, second: str) -> None:
    twins.prepare("qemu-img create -q -f qcow2 empty 1M")
    twins.prepare("qemu-img create -q -f qcow2 larger 3M")
    assert "(100.00/100%)" in twins.same(f"compare -U -p empty {second}").out
