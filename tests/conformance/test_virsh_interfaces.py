"""Interfaces of the host through our virsh beside real virsh: the host's own, and the test driver's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.registry import open_drivers
from hostel.drivers.store import Directories
from hostel.objects import Connection
from support import libvirtd
from support.virsh import run_lines

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]
DOCUMENT = """<interface type='bridge' name='br7'>
  <start mode='none'/>
  <bridge stp='off'>
    <interface type='ethernet' name='eth7'>
      <mac address='52:54:00:01:02:03'/>
    </interface>
  </bridge>
</interface>
"""


@pytest.fixture(scope="module")
def real() -> Iterator[libvirtd.Libvirtd]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        yield daemon


def ours(directories: Directories, uri: str, *lines: tuple[str, ...]) -> list[str]:
    """Run lines on one connection; the exit code and what was printed, for each."""

    def opener(uri: str, *, read_only: bool) -> Connection:
        return Connection(open_drivers(uri, directories), read_only=read_only)

    return [f"{code}\n{out}{err}" for code, out, err in run_lines(uri, opener, lines, quiet=True)]


def test_the_hosts_interfaces_are_libvirtds(real: libvirtd.Libvirtd, tmp_path: Path) -> None:
    directories = Directories.under(tmp_path)
    listed = real.virsh("iface-list", "--all").stdout.split()
    names = [name for name in ("lo", "eth0") if name in listed]
    assert names
    for words in (
        ("iface-list",),
        ("iface-list", "--all"),
        ("iface-list", "--inactive"),
        ("iface-mac", names[0]),
        ("iface-dumpxml", "nothing"),
        ("iface-name", "02:00:00:00:00:77"),
        ("iface-name", names[0]),
        *(("iface-dumpxml", name) for name in names),
    ):
        done = real.virsh(*words, check=False)
        assert ours(directories, "qemu:///session", words) == [f"{done.returncode}\n{done.stdout}{done.stderr}"]


def test_the_test_drivers_interface_is_changed_as_libvirts(tmp_path: Path) -> None:
    new = tmp_path / "br7.xml"
    new.write_text(DOCUMENT)
    broken = tmp_path / "broken.xml"
    broken.write_text(DOCUMENT.replace("<bridge stp='off'>", "<bond>").replace("</bridge>", "</bond>"))
    lines = [
        ("iface-list",),
        ("iface-dumpxml", "eth1"),
        ("iface-mac", "eth1"),
        ("iface-name", "AA:bb:cc:dd:ee:ff"),
        ("iface-name", "eth1"),
        ("iface-mac", "aa:bb:cc:dd:ee:ff"),
        ("iface-commit",),
        ("iface-rollback",),
        # Before it begins: libvirt's test driver forgets which were on, and has all off after a rollback.
        ("iface-destroy", "eth1"),
        ("iface-destroy", "eth1"),
        ("iface-begin",),
        ("iface-begin",),
        ("iface-define", str(new)),
        ("iface-define", str(broken)),
        ("iface-list",),
        ("iface-list", "--inactive"),
        ("iface-start", "br7"),
        ("iface-list", "--all"),
        ("iface-list", "--all", "--inactive"),
        ("iface-dumpxml", "br7"),
        ("iface-destroy", "br7"),
        ("iface-destroy", "br7"),
        ("iface-undefine", "br7"),
        ("iface-undefine", "br7"),
        ("iface-rollback",),
        ("iface-list", "--all"),
        ("iface-begin",),
        ("iface-start", "aa:bb:cc:dd:ee:ff"),
        ("iface-commit",),
        ("iface-list", "--all"),
        ("iface-dumpxml", "gone"),
    ]
    # One process, for the test driver's host goes with it.
    script = "".join(f"{' '.join(words)}\n" for words in lines)
    done = subprocess.run(
        ["virsh", "-q", "-c", "test:///default"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    answers = ours(Directories.under(tmp_path), "test:///default", *lines)
    said = "".join(answer.partition("\n")[2] for answer in answers)
    shown = [line for line in done.stdout.splitlines() if line and not line.startswith("virsh # ")]
    told = [line for line in done.stderr.splitlines() if line]
    assert [line for line in said.splitlines() if line and not line.startswith("error: ")] == shown
    refusals = [line for line in said.splitlines() if line.startswith("error: ")]
    # Where libvirt's gives no reason, ours does.
    assert [line[: len(real)] for line, real in zip(refusals, told, strict=True)] == told
