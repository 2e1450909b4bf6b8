"""What `virsh event` prints while a machine lives, beside a real libvirtd with a machine of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import libvirtd
from support.libvirtd import Libvirtd
from support.session import session
from support.virsh import listened

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]
XML = """<domain type='qemu'><name>lived</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>
<features><acpi/></features><devices><controller type='scsi' index='0' model='virtio-scsi'/>
<disk type='file' device='cdrom'><target dev='sda' bus='scsi'/></disk></devices></domain>"""
LIFE = (
    "define {xml}",
    "start lived",
    "suspend lived",
    "change-media lived sda --insert {iso}",  # a reset, which the firmware makes again and again, closes the tray
    "resume lived",
    "reset lived",
    "attach-disk lived {raw} sdb --targetbus scsi --subdriver raw",
    "detach-disk lived sdb",
    "destroy lived",
    "undefine lived",
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        yield daemon


def normal(lines: list[str]) -> list[str]:
    """Leave out what depends on the moment: the guest's clock, and how often firmware without a disk starts over."""
    return [line for line in lines if "rtc-change" not in line and "'reboot'" not in line]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the user of libvirtd's QEMU may look into."""
    with tempfile.TemporaryDirectory(prefix="hl-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_events_of_a_machines_life_are_those_that_libvirt_tells(daemon: Libvirtd, tmp_path: Path, place: Path) -> None:
    files = {"xml": place / "lived.xml", "iso": place / "one.iso", "raw": place / "raw.img"}
    files["xml"].write_text(XML)
    for name in ("iso", "raw"):
        files[name].write_bytes(bytes(65536))
        files[name].chmod(0o666)

    def theirs() -> None:
        for line in LIFE:
            done = daemon.virsh(*line.format(**files).split(), check=False)
            assert done.returncode == 0, (line, done.stderr)

    command = ["virsh", "-c", daemon.uri, "event", "--all", "--loop"]
    expected = normal(listened(command, tmp_path / "theirs", {**os.environ, "LC_ALL": "C"}, theirs))
    environment = {**os.environ, "HOSTEL_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    mine = [sys.executable, "-m", "hostel", "virsh"]

    def ours() -> None:
        for line in LIFE:
            words = [*mine, *line.format(**files).split()]
            done = subprocess.run(words, env=environment, check=False, capture_output=True, timeout=60)
            assert done.returncode == 0, (line, done.stderr)

    (tmp_path / "home").mkdir()
    with session(tmp_path / "home"):
        found = normal(listened([*mine, "event", "--all", "--loop"], tmp_path / "ours", environment, ours))
    assert found == expected
