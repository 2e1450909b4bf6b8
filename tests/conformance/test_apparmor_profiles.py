"""Profiles of machines for AppArmor, rule by rule beside those that libvirt's helper makes of the same documents."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hostel.drivers.qemu.confinement.apparmor.profile import Run, rules
from hostel.drivers.qemu.confinement.apparmor.rules import Restricted
from hostel.drivers.qemu.source import prepare
from hostel.drivers.qemu.status import Status
from support import refused
from support.domain import defined

HELPER = Path("/usr/lib/libvirt/virt-aa-helper")
UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
pytestmark = [
    pytest.mark.requires_tool(str(HELPER)),
    pytest.mark.requires_tool("qemu-img"),
]
_RULE = re.compile(r'^\s*(?:deny )?"[^"]*" \w+,$')
# Where libvirt has its own files, and we have others.
_LIBVIRT = re.compile(r'"/(var/log/libvirt|var/lib/libvirt/(qemu/domain|.cache)|run/libvirt|dev/vhost-net)')
_DISK = "<disk type='file' device='{kind}'><driver name='qemu' type='{format}'/><source file='{path}'/>{more}</disk>"
CASES = {
    "chains, and what is only read": (
        _DISK.format(kind="disk", format="qcow2", path="{home}/top", more="<target dev='vda' bus='virtio'/>")
        + _DISK.format(kind="cdrom", format="raw", path="{home}/cd", more="<target dev='sda' bus='sata'/><readonly/>")
        + _DISK.format(kind="disk", format="raw", path="{home}/raw", more="<target dev='vdb' bus='virtio'/><readonly/>")
        + _DISK.format(kind="disk", format="raw", path="{home}/link", more="<target dev='vdc' bus='virtio'/>"),
        "",
    ),
    "character devices": (
        "<serial type='file'><source path='{home}/serial'/></serial>"
        "<serial type='pipe'><source path='{home}/pipe'/></serial><serial type='pty'/>"
        "<parallel type='dev'><source path='/dev/parport0'/></parallel>"
        "<channel type='unix'><source mode='bind' path='{home}/channel'/><target type='virtio' name='a'/></channel>",
        "",
    ),
    "what boots": (
        "",
        "<kernel>{home}/kernel</kernel><initrd>/boot/initrd.img</initrd><dtb>{home}/dtb</dtb>",
    ),
    "firmware": (
        "",
        "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader><nvram>{home}/vars</nvram>",
    ),
    "directories, events, memory": (
        "<filesystem type='mount'><source dir='{home}/dir'/><target dir='a'/></filesystem>"
        "<filesystem type='mount'><source dir='{home}/read'/><target dir='b'/><readonly/></filesystem>"
        "<filesystem type='mount'><driver type='virtiofs'/><source dir='{home}/other'/><target dir='c'/></filesystem>"
        "<input type='evdev'><source dev='/dev/input/event7'/></input>"
        "<shmem name='mine'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>"
        "<interface type='vhostuser'><mac address='52:54:00:00:00:01'/>"
        "<source type='unix' path='{home}/vhost' mode='client'/><model type='virtio'/></interface>",
        "",
    ),
    "screens": (
        "<graphics type='vnc' socket='{home}/vnc'><listen type='socket' socket='{home}/vnc'/></graphics>"
        "<graphics type='egl-headless'><gl rendernode='/dev/dri/renderD128'/></graphics>",
        "",
    ),
}


def _place(home: Path) -> None:
    for name in ("base", "raw", "cd", "kernel", "dtb", "vars", "serial", "linked", "pipe.in", "pipe.out"):
        (home / name).write_bytes(bytes(1 << 16))
    (home / "link").symlink_to(home / "linked")
    for name, below, form in (("middle", "base", "raw"), ("top", "middle", "qcow2")):
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(home / below), "-F", form, str(home / name)]
        subprocess.run(words, check=True, timeout=30)
    for name in ("dir", "read", "other"):
        (home / name).mkdir()


def _theirs(xml: str) -> set[str] | None:
    """What libvirt's helper writes, without what is of libvirt's own; None where it refuses."""
    done = subprocess.run(
        [HELPER, "-d", "-r", "-u", f"libvirt-{UUID}"],
        input=xml,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        return None
    return {line.strip() for line in done.stderr.splitlines() if _RULE.match(line) and not _LIBVIRT.search(line)}


def _ours(xml: str, home: Path) -> set[str]:
    domain = defined(xml)
    prepare(domain, None)
    run = Run(home / "run", home / "run/qemu", home / "log")
    found = rules(Status(domain, 1, 0, 0, str(run.folder), 0), run)
    return {line.strip() for line in found if _RULE.match(line) and "/run/" not in line and '/log"' not in line}


def _same(rule: str) -> str:
    """A rule with its letters in one order."""
    path, _, letters = rule.rstrip(",").rpartition(" ")
    return f"{path} {''.join(sorted(letters))}"


@pytest.mark.parametrize("case", CASES)
def test_rules_are_those_of_libvirt_s_helper(tmp_path: Path, case: str) -> None:
    _place(tmp_path)
    devices, os = (text.replace("{home}", str(tmp_path)) for text in CASES[case])
    xml = refused.document(devices, os=os, body=f"<uuid>{UUID}</uuid>")
    theirs = _theirs(xml)
    assert theirs
    emulators = {rule for rule in _ours(xml, tmp_path) if "qemu-system" in rule}
    assert set(map(_same, _ours(xml, tmp_path) - emulators)) == set(map(_same, theirs))


@pytest.mark.parametrize(
    "path", ["/etc/image", "/usr/share/image", "/usr/lib/x/image", "/boot/image", "/proc/kcore", "/usr/bin/image"]
)
def test_what_no_machine_may_open_is_refused_by_both(tmp_path: Path, path: str) -> None:
    more = "<target dev='vda' bus='virtio'/>"
    xml = refused.document(_DISK.format(kind="disk", format="raw", path=path, more=more), body=f"<uuid>{UUID}</uuid>")
    assert _theirs(xml) is None
    domain = defined(xml)
    run = Run(tmp_path, tmp_path, tmp_path)
    with pytest.raises(Restricted, match="no machine may open"):
        rules(Status(domain, 1, 0, 0, "", 0), run)
