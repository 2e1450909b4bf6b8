"""Disks inside an OVA, opened by the real qemu-img with the words that ``hostel inspect`` prints."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from hostel.img.inspect import inspect
from hostel.img.inspection import Level
from support.formats import good, ours, theirs
from support.ova import description, manifest

pytestmark = pytest.mark.requires_tool("qemu-img")
RANDOM = random.Random("ova")


@pytest.mark.requires_tool("tar")
@pytest.mark.parametrize("form", ["ustar", "gnu", "pax"])
def test_the_real_tool_reads_the_disk_in_its_place(tmp_path: Path, form: str) -> None:
    (tmp_path / "raw").write_bytes(RANDOM.randbytes(1 << 20) + bytes(3 << 20))
    options = ("-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized")
    good(theirs("convert", *options, tmp_path / "raw", tmp_path / "d.vmdk"))
    files = {"m.ovf": description({"d.vmdk": 4 << 20}), "d.vmdk": (tmp_path / "d.vmdk").read_bytes()}
    (tmp_path / "m.ovf").write_bytes(files["m.ovf"])
    (tmp_path / "m.mf").write_bytes(manifest(files))
    command = ["tar", f"--format={form}", "-cf", "a.ova", "m.ovf", "m.mf", "d.vmdk"]
    subprocess.run(command, cwd=tmp_path, timeout=60, check=True)
    found = inspect(str(tmp_path / "a.ova"), check_digests=True)
    assert found.disks is not None and found.verdict is Level.WARNING
    (disk,) = found.disks
    assert (disk.virtual_size, disk.disk.capacity) == (4 << 20, 4 << 20)
    words = ("convert", "-O", "raw", "--image-opts", disk.options(str(tmp_path / "a.ova")))
    for tool, name in ((ours, "ours"), (theirs, "theirs")):
        good(tool(*words, tmp_path / name))
        assert (tmp_path / name).read_bytes() == (tmp_path / "raw").read_bytes()
