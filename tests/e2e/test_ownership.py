"""A QEMU that is another user: what it is given while it runs, what it is refused, and what comes back after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from support.session import disk, domain_xml

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("setpriv"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
]
MINE, QEMU = (1000, 1001), (4242, 4343)
# Starts the machine, and is killed when it has given it the files, before QEMU runs.
KILLED = """
import os, sys
from hostel.drivers.qemu.launch import Launcher
from hostel.cli.main import main
Launcher._launch = lambda *words, **more: os.kill(os.getpid(), 9)
main(["virsh", "start", "guest"])
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A session in a directory that everybody may search; what pytest makes is closed."""
    found = Path(tempfile.mkdtemp(prefix="dac-"))
    found.chmod(0o755)
    (found / "config").mkdir()
    (found / "config/qemu.conf").write_text(f'user = "+{QEMU[0]}"\ngroup = "+{QEMU[1]}"\n')
    image = found / "disk.img"
    image.write_bytes(guest.image(label="owned", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    os.chown(image, *MINE)
    (found / "guest.xml").write_text(domain_xml(found, disk(image)))
    virsh(found, f"define {found}/guest.xml")
    yield found
    virsh(found, "destroy guest", check=False)
    shutil.rmtree(found)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOSTEL_HOME": str(home), "LC_ALL": "C"}


def virsh(home: Path, commands: str, *, check: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hostel", "virsh", "-q", commands], capture_output=True, text=True, timeout=120,
        check=False, env=environment(home), cwd="/",
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_files_are_qemu_s_while_it_needs_them(home: Path) -> None:
    added, image, overlay = home / "added.qcow2", home / "disk.img", home / "disk.moment"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", added, "1M"], check=True, timeout=60)
    os.chown(added, *MINE)
    virsh(home, "start guest")
    assert (owner(image), owner(home / "guest.log")) == (QEMU, (0, 0))  # which QEMU does not write itself
    virsh(home, f"attach-disk guest {added} vdb --subdriver qcow2; snapshot-create-as guest moment --disk-only")
    assert {owner(path) for path in (added, image, overlay, home / "added.moment")} == {QEMU}
    virsh(home, "blockcommit guest vda --active --pivot --wait")
    assert (owner(overlay), owner(image)) == ((0, 0), QEMU)
    virsh(home, f"blockcopy guest vdb {home}/copy.qcow2 --wait --pivot --transient-job")
    assert (owner(home / "copy.qcow2"), owner(added), owner(home / "added.moment")) == (QEMU, MINE, (0, 0))
    virsh(home, "destroy guest")
    assert (owner(image), owner(added), owner(home / "copy.qcow2")) == (MINE, MINE, (0, 0))
    assert not [*(home / "run/qemu/given").iterdir()]


def test_what_qemu_s_user_is_denied_names_who_and_whose(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    shutil.move(home / "disk.img", closed)
    (home / "guest.xml").write_text((home / "guest.xml").read_text().replace("/disk.img", "/closed/disk.img"))
    said = virsh(home, f"undefine guest; define {home}/guest.xml; start guest", check=False)
    assert f"the directory '{closed}' (root:root, mode 0700) does not let the user with uid 4242 through" in said
    assert f"setfacl -m u:4242:x {closed}, or name another user in qemu.conf" in said
    assert owner(closed / "disk.img") == MINE


def test_a_data_file_that_an_image_names_is_not_given_and_is_named_where_it_is_denied(home: Path) -> None:
    data, image = home / "data.raw", home / "top.qcow2"
    words = ["-f", "qcow2", "-o", f"data_file={data}", str(image), "1M"]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True, timeout=60)
    for path in (data, image):
        os.chown(path, *MINE)
        path.chmod(0o600)
    said = virsh(home, f"attach-disk guest {image} vdb --subdriver qcow2 --config; start guest", check=False)
    assert f"Could not open '{data}': Permission denied" in said
    assert f"setfacl -m u:4242:rw {data}, or name another user in qemu.conf" in said
    assert (owner(data), owner(image)) == (MINE, MINE)
    os.chown(data, *QEMU)
    virsh(home, "start guest")
    assert (owner(data), owner(image)) == (QEMU, QEMU)
    virsh(home, "destroy guest")
    assert (owner(data), owner(image)) == (QEMU, MINE)


def test_who_is_killed_while_a_machine_starts_leaves_no_file_of_another_s(home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], timeout=60, check=False, env=environment(home), cwd="/")
    assert done.returncode == -9
    assert owner(home / "disk.img") == QEMU
    assert virsh(home, "domstate guest").strip() == "shut off"
    assert owner(home / "disk.img") == MINE
    assert not [name for name in os.listxattr(home / "disk.img") if name.startswith("trusted.libvirt")]


def test_files_that_are_not_given_are_left_to_who_may_write_them(home: Path) -> None:
    with (home / "config/qemu.conf").open("a") as settings:
        settings.write('dynamic_ownership = 0\nstdio_handler = "file"\n')
    (home / "disk.img").chmod(0o666)
    home.chmod(0o777)
    virsh(home, "start guest")
    assert (owner(home / "disk.img"), owner(home / "guest.log")) == (MINE, QEMU)
    virsh(home, "destroy guest")
    assert (owner(home / "disk.img"), owner(home / "guest.log")) == (MINE, QEMU)
