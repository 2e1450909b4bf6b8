"""``hostel inspect`` judges images that the real tools made: what they make by default is safe, what refers is not."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from hostel.img.inspect import inspect
from hostel.img.inspection import Level
from support import key_timing
from support.fast_keys import fast_keys

__all__ = ["fast_keys"]

pytestmark = pytest.mark.requires_tool("qemu-img")
MIB = 1 << 20


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(command: str) -> None:
    done = key_timing.run(shlex.split(command))
    assert not done.returncode, done.stderr


def codes(path: str, level: Level, expected: str | None = None) -> set[str]:
    return {each.code for each in inspect(path, expected=expected).findings if each.level is level}


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compat=1.1,lazy_refcounts=on",
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "extended_l2=on",
        "compression_type=zstd",
        "preallocation=metadata",
        "preallocation=full",
    ],
)
@pytest.mark.parametrize("size", ["0", "1000k", "64M"])
def test_whatever_qcow2_the_real_tool_makes_is_safe(real: Path, options: str, size: str) -> None:
    call(f"qemu-img create -f qcow2 -o {options} a {size}")
    found = inspect("a", expected="qcow2")
    assert found.findings == ()
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "a"], timeout=60))
    assert (found.virtual_size, found.actual_size) == (told["virtual-size"], told["actual-size"])


def test_the_largest_disk_is_safe_until_a_limit_is_set(real: Path) -> None:
    call("qemu-img create -f qcow2 -o cluster_size=64k a 64T")
    assert inspect("a").findings == ()
    assert inspect("a", max_virtual_size=1 << 40).verdict is Level.UNSAFE


def test_written_and_compressed_images_are_safe(real: Path) -> None:
    call("qemu-img create -f qcow2 -o cluster_size=4k a 8M")
    call("qemu-io -f qcow2 -c 'write -P 7 0 4M' -c 'write -z 1M 64k' -c 'discard 2M 64k' a")
    call("qemu-img convert -c -O qcow2 a b")
    call("qemu-img convert -O raw a c")
    for name, format in (("a", "qcow2"), ("b", "qcow2"), ("c", "raw")):
        assert inspect(name, expected=format).findings == ()


@pytest.mark.parametrize("format", ["qcow", "qed", "vdi", "vhdx", "vpc", "parallels", "vmdk", "luks"])
def test_each_format_is_told_by_content_and_is_no_raw_disk(real: Path, format: str) -> None:
    secret = "--object secret,id=s,data=x -o key-secret=s,iter-time=10" if format == "luks" else ""
    call(f"qemu-img create -f {format} {secret} a 4M")
    found = inspect("a", expected="raw")
    assert (found.format, found.formats) == (format, (format,))
    assert "format-mismatch" in {each.code for each in found.findings}
    assert "format-mismatch" not in codes("a", Level.UNSAFE, format)
    if format not in ("vhdx", "parallels", "luks"):
        told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "a"], timeout=60))
        assert found.virtual_size == told["virtual-size"]


def test_fixed_vhd_has_no_header_and_is_told_by_its_end(real: Path) -> None:
    call("qemu-img create -f vpc -o subformat=fixed a 4M")
    assert codes("a", Level.UNSAFE, "raw") >= {"format-mismatch"}


@pytest.mark.parametrize(
    ("subformat", "names"),
    [
        ("monolithicSparse", []),
        ("monolithicFlat", ["a-flat.vmdk"]),
        ("twoGbMaxExtentSparse", ["a-s001.vmdk"]),
        ("twoGbMaxExtentFlat", ["a-f001.vmdk"]),
        ("streamOptimized", []),
    ],
)
def test_extents_of_each_kind_of_vmdk_are_named(real: Path, subformat: str, names: list[str]) -> None:
    call(f"qemu-img create -f vmdk -o subformat={subformat} a.vmdk 4M")
    found = inspect("a.vmdk")
    assert [each.filename for each in found.names] == names
    assert (found.verdict, found.virtual_size) == (Level.UNSAFE if names else Level.NOTE, 4 * MIB)


def test_backing_files_are_unsafe_however_they_are_named(real: Path) -> None:
    call("qemu-img create -f qcow2 base 1M")
    for name in ("base", str(real / "base"), 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base"}}'):
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", name, "a"], check=True, timeout=60
        )
        assert codes("a", Level.UNSAFE, "qcow2") == {"backing-file"}
        told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "a"], timeout=60))
        (claim,) = inspect("a").names
        assert (claim.filename, claim.format) == (told["backing-filename"], "qcow2")
    call("qemu-img rebase -u -b '' a")
    assert inspect("a", expected="qcow2").findings == ()


@pytest.mark.parametrize("raw", ["on", "off"])
def test_external_data_files_are_unsafe(real: Path, raw: str) -> None:
    call(f"qemu-img create -f qcow2 -o data_file=data,data_file_raw={raw} a 1M")
    assert codes("a", Level.UNSAFE, "qcow2") == {"external-data-file"}
    assert [each.filename for each in inspect("a").names] == ["data"]


def test_snapshots_bitmaps_and_encryption_are_told(real: Path) -> None:
    call("qemu-img create -f qcow2 a 1M")
    call("qemu-img bitmap --add a b0")
    assert (codes("a", Level.WARNING), codes("a", Level.NOTE)) == (set(), {"bitmaps"})
    call("qemu-img snapshot -c one a")
    found = inspect("a")
    assert (found.verdict, found.snapshots) == (Level.WARNING, 1)
    call("qemu-img create -f qcow2 --object secret,id=s,data=x -o encrypt.format=aes,encrypt.key-secret=s a 1M")
    found = inspect("a")
    assert found.encrypted
    assert "encrypted" in {each.code for each in found.findings}


@pytest.mark.requires_tool("qemu-io")
def test_an_image_that_another_process_writes_is_a_warning(real: Path) -> None:
    call("qemu-img create -f qcow2 a 1M")
    with subprocess.Popen(["qemu-io", "-f", "qcow2", "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        try:
            writer.stdin.write(b"length\n")
            writer.stdin.flush()
            writer.stdout.readline()  # it is open now
            (found,) = inspect("a").findings
        finally:
            writer.communicate(b"quit\n", timeout=30)
    assert (found.level, found.code) == (Level.WARNING, "in-use")
    assert "qemu-io" in found.message
    assert inspect("a").findings == ()


@pytest.mark.requires_tool("mke2fs")
@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_a_real_file_system_is_named_on_raw_and_in_qcow2(real: Path, kind: str) -> None:
    call("truncate -s 16M a")
    call(f"mke2fs -q -F -t {kind} a")
    call("qemu-img convert -O qcow2 a b")
    call("qemu-img convert -c -O qcow2 a c")
    for name, format in (("a", "raw"), ("b", "qcow2"), ("c", "qcow2")):
        found = inspect(name, expected=format)
        assert found.content is not None
        assert (found.verdict, found.content.filesystem) == (Level.NOTE, kind)


def test_an_image_wrapped_in_another_is_unsafe(real: Path) -> None:
    call("qemu-img create -f qcow2 -b /etc/passwd -F raw -u inner 1M")
    call("qemu-img convert -f raw -O qcow2 inner outer")
    assert codes("outer", Level.UNSAFE, "qcow2") == {"nested-format"}
