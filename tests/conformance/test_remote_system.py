"""Our virsh and the real one on one libvirtd of the system: the same lines, with a machine that runs, say the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.cli.virsh.main import open_uri
from support import libvirtd_system
from support.virsh import MARKED, listened, real_lines, run_lines

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("qemu-img"),
]
DRIVERS = ("qemu", "storage", "secret", "nodedev", "nwfilter")
MACHINE = """<domain type='qemu'><name>far</name><uuid>6ba7b810-9dad-11d1-80b4-00c04fd430c8</uuid>
<memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
<features><acpi/></features><devices><controller type='scsi' model='virtio-scsi'/><serial type='pty'/>
<disk type='file'><driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<video><model type='vga'/></video><graphics type='vnc'/></devices></domain>"""
SECRET = """<secret ephemeral='yes'><uuid>6ba7b811-9dad-11d1-80b4-00c04fd430c8</uuid>
<usage type='volume'><volume>/far</volume></usage></secret>"""
FILTER = (
    "<filter name='far'><uuid>6ba7b812-9dad-11d1-80b4-00c04fd430c8</uuid><rule action='drop' direction='in'/></filter>"
)
LINES = """
version
hostname
nodeinfo
capabilities
define {xml}
dominfo far
start far
list
domstate far --reason
domblklist far
domblkinfo far vda
vcpucount far
vcpucount far --maximum --live
dumpxml far --inactive
suspend far
domstate far --reason
resume far
domcontrol far
desc far --live --title afar
desc far --title
metadata far http://x --key x --set <a/>
metadata far http://x
attach-disk far {extra} sdb --targetbus scsi --subdriver raw
domblklist far --details
detach-disk far sdb
attach-disk far {extra} vdc --config --subdriver raw
detach-disk far vdc --config
change-media far vda --eject
blkdeviotune far vda --total-iops-sec 100
blkdeviotune far vda
blockresize far vda 2M
domblkinfo far vda
setmem far 32M
send-key far KEY_A
qemu-monitor-command far --hmp info name
snapshot-create-as far one first
snapshot-list far
snapshot-current far --name
snapshot-revert far one
snapshot-delete far one
checkpoint-create-as far c1
checkpoint-list far
checkpoint-delete far c1
domjobinfo far
managedsave far
domstate far --reason
dominfo far
start far
save far {saved}
save-image-dumpxml {saved}
restore {saved}
reset far
autostart far
autostart far --disable
destroy far
domstate far --reason
start nosuch
destroy far
domrename far near
domrename near far
undefine far
pool-define-as far dir --target {pool}
pool-build far
pool-start far
pool-info far
vol-create-as far v.qcow2 1M --format qcow2
vol-list far --details
vol-info far/v.qcow2 far
vol-info v.qcow2 --pool far
vol-upload v.qcow2 {extra} --pool far
vol-download v.qcow2 {back} --pool far
vol-resize v.qcow2 2M --pool far
vol-delete v.qcow2 --pool far
pool-refresh far
pool-list --all
pool-destroy far
pool-undefine far
secret-define {secret}
secret-set-value 6ba7b811-9dad-11d1-80b4-00c04fd430c8 MTIzNA==
secret-list
secret-dumpxml 6ba7b811-9dad-11d1-80b4-00c04fd430c8
secret-undefine 6ba7b811-9dad-11d1-80b4-00c04fd430c8
nodedev-list
nodedev-list --cap pci --tree
nodedev-dumpxml computer
nwfilter-define {filter}
nwfilter-list
nwfilter-dumpxml far
nwfilter-undefine far
""".strip().splitlines()


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    with libvirtd_system.running(drivers=DRIVERS) as uri:
        yield uri


def furnish(directory: Path) -> dict[str, str]:
    """What the lines name, made anew."""
    raw, disk = directory / "disk.raw", directory / "disk.qcow2"
    raw.write_bytes(guest.image(label="far", mode=guest.Mode.STAY, size=1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], check=True, timeout=60)
    names = {name: directory / name for name in ("xml", "secret", "filter", "extra", "saved", "pool", "back")}
    for name, text in (("xml", MACHINE.format(disk=disk)), ("secret", SECRET), ("filter", FILTER)):
        names[name].write_text(text)
    names["extra"].write_bytes(bytes(1 << 20))
    return {name: str(path) for name, path in names.items()}


def normal(text: str) -> str:
    """Leave out what depends on the moment."""
    text = re.sub(r"^(CPU time|UUID)(: +).*", r"\1\2-", text.replace("\r\n", "\n"), flags=re.MULTILINE)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", "-", text)
    text = re.sub(r"^(Allocation|Available)(: +).*GiB$", r"\1\2-", text, flags=re.MULTILINE)
    return re.sub(r"\b(Id: +)?\d+(?= +far +running)", "-", text)


def test_lines_say_the_same(uri: str, tmp_path: Path) -> None:
    lines = [line.format(**furnish(tmp_path)) for line in LINES]
    theirs = real_lines(uri, lines)
    furnish(tmp_path)
    ours = [(out, err) for _, out, err in run_lines(uri, open_uri, [[line] for line in lines], quiet=True)]
    differences = [
        (line, mine, real)
        for line, mine, real in zip(lines, ours, theirs, strict=True)
        if [normal(text) for text in mine] != [normal(text) for text in real]
    ]
    assert not differences, "\n".join(map(str, differences))  # whole: an assertion shortens what it shows


def test_events_are_those_that_the_real_one_hears(uri: str, tmp_path: Path) -> None:
    places = furnish(tmp_path)
    life = [
        "define {xml}",
        "start far",
        "suspend far",
        "resume far",
        "domrename far near",
        "destroy far",
        "undefine far",
    ]
    heard: list[list[str]] = []
    marked = tmp_path / "marked.xml"
    marked.write_text(MARKED)

    def live() -> None:
        real_lines(uri, [line.format(**places) for line in life])

    def mark() -> None:
        real_lines(uri, [f"define {marked}", "undefine hostel-mark"])

    def hear_with_the_real_one() -> None:
        heard.append(listened(["virsh", *words], tmp_path / "theirs", environment, live, mark))

    words = ["-c", uri, "event", "--all", "--loop"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "LC_ALL": "C"}
    mine = [sys.executable, "-m", "hostel", "virsh", *words]
    ours = listened(mine, tmp_path / "ours", environment, hear_with_the_real_one, mark)
    assert ours == heard[0]
    assert any("Resumed" in line for line in ours)
