"""Other hypervisors' configuration beside libvirt: its VMware driver, and real virsh with our daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import hosteld
from support.hosteld import Hosteld
from support.native import BHYVE_MACHINE, VMX_HEAD, VMX_MACHINE, XL_MACHINE

pytestmark = pytest.mark.requires_tool("virsh")

DISK = 'scsi0.present = "true"\nscsi0:0.present = "true"\nscsi0:0.fileName = "{}"\n'
CARD = 'ethernet0.present = "true"\n'
MACHINES = {
    "least": VMX_HEAD,
    "everything": VMX_MACHINE,
    "affinity": VMX_HEAD + 'numvcpus = "2"\nsched.cpu.affinity = "0,3,4"\nsched.cpu.shares = "123"\nmemsize = "64"\n'
    'sched.mem.max = "32"\nsched.mem.minsize = "16"\nannotation = "two|0Alines"\n',
    "identity": VMX_HEAD + 'vm.genid = "-570734802784577186"\nvm.genidX = "-6261604076590978002"\n',
    "floppies": VMX_HEAD + 'floppy0.present = "true"\nfloppy0.fileType = "file"\nfloppy0.fileName = "a.flp"\n'
    'floppy1.present = "true"\nfloppy1.fileType = "device"\nfloppy1.fileName = "/dev/fd1"\n',
    "sata": VMX_HEAD + 'sata0.present = "true"\nsata0:0.present = "true"\nsata0:0.fileName = "a.vmdk"\n'
    'sata0:1.present = "true"\nsata0:1.deviceType = "cdrom-raw"\nsata0:1.fileName = "auto detect"\n',
    "disks": VMX_HEAD + DISK.format("/vmfs/volumes/a/b.vmdk") + 'scsi0:0.writeThrough = "true"\n'
    'scsi0:6.present = "true"\nscsi0:6.fileName = "c.VMDK"\nide0:1.present = "true"\nide0:1.fileName = "d.vmdk"\n'
    'ide1:1.present = "true"\nide1:1.deviceType = "atapi-cdrom"\nide1:1.fileName = "/dev/sr0"\n',
    "cards": VMX_HEAD + CARD + 'ethernet0.networkName = "VM Network"\nethernet0.addressType = "static"\n'
    'ethernet0.address = "00:50:56:00:00:01"\nethernet0.checkMACAddress = "false"\nethernet0.virtualDev = "vmxnet"\n'
    'ethernet0.features = "15"\nethernet3.present = "true"\nethernet3.connectionType = "custom"\n'
    'ethernet3.networkName = "n"\nethernet3.vnet = "/dev/vmnet3"\nethernet3.addressType = "vpx"\n'
    'ethernet3.generatedAddress = "00:50:56:9b:00:01"\n',
    "ports": VMX_HEAD + 'serial1.present = "true"\nserial1.fileType = "pipe"\nserial1.fileName = "p"\n'
    'serial3.present = "true"\nserial3.fileName = "/dev/ttyS0"\nparallel0.present = "true"\n'
    'parallel0.fileType = "file"\nparallel0.fileName = "out"\n',
}  # fmt: skip
REFUSED = {
    "nothing": "",
    "version": 'config.version = "7"\n',
    "number": VMX_HEAD + "numvcpus = 2\n",
    "memory": VMX_HEAD + 'memsize = "17"\n',
    "image": VMX_HEAD + DISK.format("a.img"),
    "firmware": VMX_HEAD + 'firmware = "bios"\n',
    "host only": VMX_HEAD + CARD + 'ethernet0.connectionType = "hostonly"\n',
    "card": VMX_HEAD + CARD + 'ethernet0.virtualDev = "ne2000"\n',
    "port": VMX_HEAD + 'serial0.present = "true"\nserial0.fileType = "network"\nserial0.fileName = "tcp://h"\n',
}


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What libvirt's VMware driver needs to be there before it converts anything: programs that say their version."""
    folder = tmp_path_factory.mktemp("player")
    for name in ("vmplayer", "vmrun"):
        (folder / name).write_text("#!/bin/sh\necho 'VMware Player 16.2.1 build-1'\n")
        (folder / name).chmod(0o755)
    return {**os.environ, "LC_ALL": "C", "HOME": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}


def theirs(player: dict[str, str], path: Path) -> subprocess.CompletedProcess[str]:
    words = ["virsh", "-q", "-c", "vmwareplayer:///session", "domxml-from-native", "vmware-vmx", str(path)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=player, check=False)


def ours(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hostel", "virsh", "-q", "-c", "test:///default", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", MACHINES)
def test_machine_of_vmware_is_the_document_that_libvirt_makes_of_it(
    name: str, player: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "machine.vmx"
    path.write_text(MACHINES[name])
    found, expected = ours("domxml-from-native", "vmware-vmx", str(path)), theirs(player, path)
    assert expected.returncode == 0, expected.stderr
    # What is booted first is of the driver for Player and Workstation alone; that for servers leaves it out.
    assert found.stdout == expected.stdout.replace("    <boot dev='hd'/>\n", "")


@pytest.mark.parametrize("name", REFUSED)
def test_what_libvirt_refuses_is_refused(name: str, player: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "machine.vmx"
    path.write_text(REFUSED[name])
    found, expected = ours("domxml-from-native", "vmware-vmx", str(path)), theirs(player, path)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout) == (1, "")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Hosteld]:
    with hosteld.process() as served:
        yield served


@pytest.mark.parametrize(
    ("form", "text"), [("vmware-vmx", VMX_MACHINE), ("xen-xl", XL_MACHINE), ("bhyve-argv", BHYVE_MACHINE)]
)
def test_daemon_converts_for_virsh_as_we_do(daemon: Hosteld, form: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "native").write_text(text)
    made = daemon.virsh("-q", "domxml-from-native", form, str(tmp_path / "native")).stdout
    assert made == ours("domxml-from-native", form, str(tmp_path / "native")).stdout
    if form != "bhyve-argv":  # that one has no disk to boot from
        (tmp_path / "document").write_text(made)
        back = daemon.virsh("-q", "domxml-to-native", form, "--xml", str(tmp_path / "document")).stdout
        assert back and back == ours("domxml-to-native", form, "--xml", str(tmp_path / "document")).stdout
