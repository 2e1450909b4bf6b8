"""Who QEMU runs as and who owns its files: documents and files beside those of a real libvirtd of root's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support import hosteld, libvirtd_system
from support.hosteld import PYTHON

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("setpriv"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
]
_ATTRIBUTES = ("trusted.libvirt.security.dac", "trusted.libvirt.security.ref_dac")
_LABEL = re.compile(r"\s*(<seclabel.*?(?:/>|</seclabel>))", re.DOTALL)
_MACHINE = (
    "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>"
    "<on_poweroff>destroy</on_poweroff><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>"
    "<disk type='file'><driver name='qemu' type='{format}'/><source file='{image}'>{disk}</source>"
    "<target dev='vda' bus='virtio'/>{flags}</disk>{devices}<memballoon model='none'/></devices>{body}</domain>"
)
# The machine's label, that of its disk's source, and what else is said of the disk.
CASES = {
    "none said": ("", "", ""),
    "dynamic with a base": ("<seclabel type='dynamic' model='dac'><baselabel>+5:+5</baselabel></seclabel>", "", ""),
    "static": ("<seclabel type='static' model='dac' relabel='yes'><label>nobody:+1235</label></seclabel>", "", ""),
    "no relabelling": ("<seclabel type='static' model='dac'><label>+1000:+1000</label></seclabel>", "", ""),
    "no user": ("<seclabel type='static' model='dac'><label>nosuch:root</label></seclabel>", "", ""),
    "selinux": ("<seclabel type='dynamic' model='selinux'/>", "", ""),
    "disk labelled": ("", "<seclabel model='dac' relabel='yes'><label>nobody:daemon</label></seclabel>", ""),
    "shareable": ("", "", "<shareable/>"),
}  # fmt: skip


class Daemon(NamedTuple):
    """One of both daemons, and a directory that its QEMUs can reach."""

    uri: str
    place: Path

    def virsh(self, *arguments: str) -> str:
        done = subprocess.run(
            ["virsh", "-q", "-c", self.uri, *arguments], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        return (done.stdout + done.stderr).strip()

    def labels(self, *options: str) -> list[str]:
        return [re.sub(r"\s*\n\s*", "", text) for text in _LABEL.findall(self.virsh("dumpxml", "guest", *options))]

    def label_list(self) -> str:
        code = (
            "import libvirt, sys; d = libvirt.open(sys.argv[1]).lookupByName('guest')\n"
            "print([label for label, enforcing in d.securityLabelList()], d.securityLabel())"
        )
        done = subprocess.run([PYTHON, "-c", code, self.uri], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def ids(self) -> dict[str, str]:
        """Who the machine's QEMU is."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words, lines = (folder / "cmdline").read_bytes().split(b"\0"), (folder / "status").read_text()
            except OSError:
                continue
            is_qemu = words[0].startswith(b"/usr/bin/qemu-system") and b"guest=guest,debug-threads=on" in words
            if is_qemu and str(self.place).encode() in b"".join(words):
                return {name: value for name, _, value in (line.partition(":") for line in lines.splitlines())
                        if name in ("Uid", "Gid", "Groups", "CapPrm", "CapEff")}  # fmt: skip
        return {}

    def kept(self, name: str) -> tuple[int, int, dict[str, str]]:
        """Whose a file is, and what is kept with it."""
        path, found = self.place / name, {}
        for attribute in _ATTRIBUTES:
            if attribute in os.listxattr(path):
                found[attribute.rpartition(".")[2]] = os.getxattr(path, attribute).decode()
        return path.stat().st_uid, path.stat().st_gid, found

    def files(self) -> dict[str, tuple[int, int, dict[str, str]]]:
        return {path.name: self.kept(path.name) for path in sorted(self.place.iterdir()) if path.suffix != ".xml"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that everybody may search; what pytest makes is closed."""
    found = Path(tempfile.mkdtemp(prefix="dac-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture(scope="module")
def real(place: Path) -> Iterator[Daemon]:
    with libvirtd_system.running(drivers=("qemu",), owner="nobody:nogroup") as uri:
        # Its directory, in which sockets of QEMU are.
        Path(uri.partition("socket=")[2]).parents[1].chmod(0o755)
        (place / "real").mkdir()
        yield Daemon(uri, place / "real")


@pytest.fixture(scope="module")
def ours(place: Path) -> Iterator[Daemon]:
    home = place / "home"
    (home / "state/config").mkdir(parents=True)
    (home / "state/config/qemu.conf").write_text('user = "nobody"\ngroup = "nogroup"\nstdio_handler = "file"\n')
    with hosteld.process(directory=home) as daemon:
        (place / "ours").mkdir()
        yield Daemon(daemon.uri("qemu:///system"), place / "ours")


def define(daemon: Daemon, case: str, devices: str = "") -> None:
    for path in daemon.place.iterdir():
        path.unlink()
    body, disk, flags = CASES[case]
    image = daemon.place / "image"
    image.write_bytes(bytes(1 << 20))
    os.chown(image, 1000, 1001)
    image.chmod(0o644)
    document = daemon.place / "guest.xml"
    document.write_text(
        _MACHINE.format(name="guest", format="raw", image=image, disk=disk, flags=flags, devices=devices, body=body)
    )
    assert daemon.virsh("define", str(document)) == "", case


def seen(daemon: Daemon, case: str) -> dict[str, Any]:
    """All that can be seen of a machine that starts, and of what is left of it."""
    define(daemon, case)
    found: dict[str, Any] = {"defined": daemon.labels("--inactive")}
    said = daemon.virsh("start", "guest")
    # QEMU's own words are in a line of libvirt's with its command, and explained in ours.
    found["started"] = "Permission denied" if "Permission denied" in said else said.replace(str(daemon.place), "")
    found["live"], found["inactive"] = daemon.labels(), daemon.labels("--inactive")
    found["ids"], found["files"], found["list"] = daemon.ids(), daemon.files(), daemon.label_list()
    found["info"] = [line for line in daemon.virsh("dominfo", "guest").splitlines() if "Security" in line]
    daemon.virsh("destroy", "guest")
    found["after"] = daemon.files()
    daemon.virsh("undefine", "guest")
    return found


@pytest.mark.parametrize("case", CASES)
def test_labels_owners_and_processes_are_as_libvirtd_s(real: Daemon, ours: Daemon, case: str) -> None:
    expected = seen(real, case)
    assert seen(ours, case) == expected


def test_the_host_s_security_drivers_are_as_libvirtd_s(real: Daemon, ours: Daemon) -> None:
    def models(daemon: Daemon) -> list[str]:
        return re.findall(r"<secmodel>.*?</secmodel>", daemon.virsh("capabilities"), re.DOTALL)

    assert models(ours) == models(real)
    assert len(models(ours)) == 2
