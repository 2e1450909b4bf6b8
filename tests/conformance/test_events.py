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
from support.virsh import MARKED, listened

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]
XML = """<domain type='qemu'><name>lived</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>
<features><acpi/></features><devices><controller type='scsi' index='0' model='virtio-scsi'/>
<disk type='file' device='cdrom'><target dev='sda' bus='scsi'/></disk></devices></domain>"""
SAVED = """<domain type='qemu'><name>lived</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>
<features><acpi/></features><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='{image}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"""
PLUGGED_LIFE = (
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
SAVED_LIFE = (
    "define {xml}",
    "start lived",
    "save lived {memory}",
    "restore {memory}",
    "domstate lived --reason",
    "save lived {memory} --paused",
    "restore {memory}",
    "domstate lived --reason",
    "resume lived",
    "snapshot-create-as lived s",
    "snapshot-revert lived s",
    "domstate lived --reason",
    "snapshot-revert lived s --paused",
    "domstate lived --reason",
    "managedsave lived --running",
    "start lived --paused",
    "destroy lived",
    "snapshot-revert lived s",
    "destroy lived",
    "snapshot-delete lived s",
    "undefine lived",
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        yield daemon


def normal(lines: list[str]) -> list[str]:
    """Leave out what depends on the moment.

    These are the guest's clock, how often firmware starts over, how long a job took, and whether libvirt finds QEMU's
    monitor gone before it hears that QEMU has ended.
    """
    left_out = ("rtc-change", "'reboot'", "job-completed", "control-error", "\t")
    return [line for line in lines if not any(word in line for word in left_out)]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the user of libvirtd's QEMU may look into."""
    with tempfile.TemporaryDirectory(prefix="hl-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def make_files(place: Path, document: str) -> dict[str, Path]:
    """What a life is made of, in a directory of its own."""
    place.mkdir()
    place.chmod(0o777)
    names = {"xml": "lived.xml", "iso": "one.iso", "raw": "raw.img", "image": "image.qcow2", "memory": "memory"}
    files = {word: place / name for word, name in names.items()}
    for name in ("iso", "raw"):
        files[name].write_bytes(bytes(65536))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(files["image"]), "1M"], check=True, timeout=60)
    for name in ("iso", "raw", "image"):
        files[name].chmod(0o666)
    files["xml"].write_text(document.format(**files))
    return files


@pytest.mark.requires_tool("qemu-img")
@pytest.mark.parametrize(("document", "life"), [(XML, PLUGGED_LIFE), (SAVED, SAVED_LIFE)], ids=["plugged", "saved"])
def test_events_of_a_machines_life_are_those_that_libvirt_tells(
    daemon: Libvirtd, tmp_path: Path, place: Path, document: str, life: tuple[str, ...]
) -> None:
    states: dict[str, list[str]] = {"theirs": [], "ours": []}

    def theirs() -> None:
        files = make_files(place / "theirs", document)
        for line in life:
            done = daemon.virsh(*line.format(**files).split(), check=False)
            assert done.returncode == 0, (line, done.stderr)
            states["theirs"] += [done.stdout.strip()] if "domstate" in line else []

    marked = tmp_path / "marked.xml"
    marked.write_text(MARKED)
    command = ["virsh", "-c", daemon.uri, "event", "--all", "--loop"]
    expected = normal(
        listened(
            command, tmp_path / "theirs", {**os.environ, "LC_ALL": "C"}, theirs,
            lambda: daemon.virsh(f"define {marked}; undefine hostel-mark"),
        )
    )  # fmt: skip
    environment = {**os.environ, "HOSTEL_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    mine = [sys.executable, "-m", "hostel", "virsh"]

    def ours() -> None:
        files = make_files(place / "ours", document)
        for line in life:
            words = [*mine, *line.format(**files).split()]
            done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, (line, done.stderr)
            states["ours"] += [done.stdout.strip()] if "domstate" in line else []

    (tmp_path / "home").mkdir()
    with session(tmp_path / "home") as connection:
        found = normal(
            listened(
                [*mine, "event", "--all", "--loop"], tmp_path / "ours", environment, ours,
                lambda: connection.define_domain(MARKED).undefine(),
            )
        )  # fmt: skip
    assert found == expected
    assert states["ours"] == states["theirs"]
