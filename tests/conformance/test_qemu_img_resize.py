"""qemu-img resize beside the real one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from support.twins import Twins

pytestmark = pytest.mark.requires_tool("qemu-img")


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize(
    "words",
    [
        "a 2M",
        "a +2M",
        "a +1k",
        "-q a 3M",
        "a 1M",
        "--shrink a 64k",
        "--shrink a -512",
        "--shrink a -- -512k",
        "--shrink a -1k",
        "--preallocation=full a 3M",
        "--preallocation=falloc a 3M",
    ],
)
def test_the_size_changes(twins: Twins, format: str, words: str) -> None:
    twins.prepare(f"qemu-img create -q -f {format} a 1M")
    twins.same(f"resize -f {format} {words}")
    real, ours = twins.virtual_sizes("a", format)
    assert ours == real
    assert twins.run_ours(["check", "-f", format, "a"]).code == (63 if format == "raw" else 0)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize(
    "words",
    [
        "a 512",
        "a -512k",
        "--shrink a -2M",
        "--shrink a -1M",
        "--shrink a 0",
        "a x",
        "a ''",
        "a +",
        "a --",
        "a 1M -q",
        "2M a",
        "--preallocation=falloc a 1M",
        "--preallocation=full --shrink a 1k",
        "missing 1M",
    ],
)
def test_a_size_that_cannot_be_is_refused(twins: Twins, format: str, words: str) -> None:
    twins.prepare(f"qemu-img create -q -f {format} a 1M")
    twins.refused(f"resize -f {format} {words}")


def test_metadata_is_preallocated_for_qcow2_alone(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f raw r 1M")
    twins.prepare("qemu-img create -q -f qcow2 q 1M")
    twins.refused("resize -f raw --preallocation=metadata r 2M")
    twins.same("resize --preallocation=metadata q 2M")
    twins.same("map --output=json q")


def test_a_size_that_is_no_multiple_of_a_sector_is_refused_for_qcow2(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 q 1M")
    twins.refused("resize q +1")


def test_an_old_image_with_snapshots_is_refused_its_own_size_too(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 -o compat=0.10 q 1M")
    twins.prepare("qemu-img snapshot -c one q")
    twins.refused("resize q 2M")
    twins.refused("resize q 1M")


def test_a_guessed_raw_image_brings_a_warning(twins: Twins) -> None:
    twins.truncate("a", 1 << 20)
    assert "WARNING" in twins.same("resize a 2M").err


def test_a_window_keeps_its_size(twins: Twins) -> None:
    twins.truncate("a", 1 << 20)
    twins.refused("resize --image-opts driver=raw,file.filename=a,size=512 2M")
    twins.refused("resize --image-opts driver=raw,file.filename=a,offset=512,size=512 2M")


@pytest.mark.parametrize("words", ["2M", "--shrink 64k", "+512"])
def test_what_begins_in_a_file_and_ends_with_it_is_resized(twins: Twins, words: str) -> None:
    twins.write("a", bytes(range(256)) * 4096)
    twins.same(f"resize --image-opts driver=raw,file.filename=a,offset=64k {words}")
    assert (twins.ours / "a").read_bytes() == (twins.real / "a").read_bytes()


@pytest.fixture
def small(twins: Twins) -> Iterator[Twins]:
    """Twin folders that are file systems of 16 MiB each."""
    if os.geteuid():
        pytest.skip("only root may mount file systems")
    folders = (twins.real, twins.ours)
    for folder in folders:
        image = folder.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, timeout=60)
        if subprocess.run(
            ["mount", "-o", "loop", image, folder], capture_output=True, timeout=60, check=False
        ).returncode:
            pytest.skip("this host mounts no file systems")
    try:
        yield twins
    finally:
        for folder in folders:
            subprocess.run(["umount", folder], check=False, timeout=60)


@pytest.mark.requires_tool("mkfs.ext4")
@pytest.mark.parametrize("mode", ["falloc", "full"])
@pytest.mark.requires_tool("qemu-io")
@pytest.mark.parametrize(
    ("format", "options"),
    [("raw", ""), ("qcow2", ""), ("qcow2", "-o cluster_size=512"), ("qcow2", "-o data_file=data")],
)
def test_where_there_is_no_room_for_preallocation_the_image_is_as_before(
    small: Twins, format: str, options: str, mode: str
) -> None:
    small.prepare(f"qemu-img create -q -f {format} {options} a 1M")
    small.prepare(f"qemu-io -f {format} -c 'write -q -P 1 0 1M' a")
    command = ["resize", "-f", format, f"--preallocation={mode}", "a", "60M"]
    expected, found = small.run_real(command), small.run_ours(command)
    assert (expected.code, found.code) == (1, 1)
    assert "No space left on device" in expected.err
    assert found.err.startswith(expected.err)  # ours says what is full as well
    assert small.virtual_sizes("a", format) == (1 << 20, 1 << 20)
    small.same(f"check -q -f {format} a")
    assert os.statvfs(small.ours).f_bavail * 10 > os.statvfs(small.real).f_bavail * 9
