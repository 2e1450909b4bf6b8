"""Disks by open files: given to a connection, in process and over a daemon's socket, and opened by QEMU alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support import hosteld

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-x86_64")]
_XML = """<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' device='disk'>
<driver name='qemu' type='raw'/><source file='/nowhere/disk.img' fdgroup='image'/><target dev='vda' bus='virtio'/>
</disk>
<serial type='file'><source path='{said}'/></serial></devices></domain>"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(guest.image(label="given", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    return path


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[QemuDriver]:
    driver = QemuDriver(Directories.under(tmp_path))
    yield driver
    for ref in driver.connect_list_all_domains():
        if ref.id >= 0:
            driver.domain_destroy(ref)
    driver.close()


def _associate(driver: QemuDriver, ref: DomainRef, disk: Path) -> None:
    file = os.open(disk, os.O_RDWR)
    try:
        driver.domain_fd_associate(ref, "image", [file])
    finally:
        os.close(file)


def test_a_guest_boots_from_a_file_that_has_no_path(driver: QemuDriver, tmp_path: Path, disk: Path) -> None:
    ref = driver.domain_define_xml(_XML.format(said=tmp_path / "said"))
    with pytest.raises(VirtError, match="file descriptor group 'image' was not associated with the domain") as caught:
        driver.domain_create(ref)
    assert caught.value.code == ErrorCode.INVALID_ARG
    before = set(os.listdir("/proc/self/fd"))
    _associate(driver, ref, disk)
    disk.unlink()
    for _ in range(2):  # what was given stays for another start
        running = driver.domain_create(ref)
        deadline = 200
        while b"given" not in (tmp_path / "said").read_bytes() and deadline:
            deadline -= 1
            subprocess.run(["sleep", "0.05"], check=True)
        assert deadline, (tmp_path / "said").read_bytes()
        driver.domain_destroy(running)
    driver.close()
    assert set(os.listdir("/proc/self/fd")) <= before
    with pytest.raises(VirtError, match="was not associated"):
        driver.domain_create(ref)


def test_what_is_no_file_is_refused(driver: QemuDriver, tmp_path: Path) -> None:
    ref = driver.domain_define_xml(_XML.format(said=tmp_path / "said"))
    with pytest.raises(VirtError, match="failed to duplicate passed fd with index '0': Bad file descriptor"):
        driver.domain_fd_associate(ref, "image", [987654])
    with pytest.raises(VirtError, match="nfds in virDomainFDAssociate must not be zero"):
        driver.domain_fd_associate(ref, "image", [])


@pytest.mark.requires_tool("virsh")
@pytest.mark.parametrize("program", ["virsh", "hostel"])
def test_virsh_gives_files_to_a_daemon(tmp_path: Path, disk: Path, program: str) -> None:
    said = tmp_path / "said"
    (tmp_path / "g.xml").write_text(_XML.format(said=said))
    words = ["virsh"] if program == "virsh" else [str(Path(sys.executable).with_name("hostel")), "virsh"]
    with hosteld.process() as daemon, disk.open("r+b") as file:
        commands = f"define {tmp_path}/g.xml; dom-fd-associate g image {file.fileno()}; start --paused g; destroy g"
        done = subprocess.run(
            [*words, "-c", daemon.uri("qemu:///session"), commands],
            capture_output=True, text=True, timeout=60, check=False, pass_fds=[file.fileno()],
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "started" in done.stdout


_MONITOR = """
import json, sys
if sys.argv[1] == "ours":
    from hostel.libvirt.replace import replace_libvirt
    replace_libvirt()
import libvirt, libvirt_qemu
libvirt.registerErrorHandler(lambda context, error: None, None)
c = libvirt.open(sys.argv[2])
d = c.createXML(sys.argv[3], libvirt.VIR_DOMAIN_START_PAUSED)
def told(command, files, *flags):
    try:
        answer, given = libvirt_qemu.qemuMonitorCommandWithFiles(d, command, files, *flags)
    except libvirt.libvirtError as error:
        return error.get_error_code(), error.get_error_message(), error.get_int1()
    except TypeError as error:
        return str(error)
    return (json.loads(answer) if answer[0] == "{" else answer.strip()), given
with open("/dev/null") as file:
    number = file.fileno()
    added, given = told('{"execute":"add-fd","arguments":{"fdset-id":7,"opaque":"mine"}}', [number])
    print(sorted(added["return"]), given)
    known = told('{"execute":"query-fdsets"}', [])[0]["return"]
    print([each["fds"][0]["opaque"] for each in known if each["fdset-id"] == 7])
    print(told('{"execute":"getfd","arguments":{"fdname":"a"}}', [number])[0]["return"])
    print(told("info status", [], libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP))
    print(told('{"execute":"query-name"}', [number, number]), told("{}", [], 2))
    print(told('{"execute":"query-name"}', [98765])[:2] if sys.argv[4] == "daemon" else "")
    print(told(None, []), told("{}", None), told("{}", 3), told("{}", ["x"]))
    print(d.name(), c.isAlive())
d.destroy()
"""


def test_qemus_monitor_is_given_files(tmp_path: Path) -> None:
    xml = "<domain type='qemu'><name>m</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>"
    environment = {**os.environ, "HOSTEL_HOME": str(tmp_path)}

    def run(interpreter: str, *words: str) -> str:
        command = [interpreter, "-c", _MONITOR, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with hosteld.process() as daemon:
        uri = daemon.uri("qemu:///session")
        there = run(sys.executable, "ours", uri, xml, "daemon")
        theirs = run(hosteld.PYTHON, "theirs", uri, xml, "daemon")
    here = run(sys.executable, "ours", "qemu:///session", xml, "here")
    assert there == theirs
    assert here.replace("\n\n", "\n(38, 'Cannot duplicate FD 98765: Bad file descriptor')\n") == theirs
    lines = theirs.splitlines()
    assert lines[:4] == ["['fd', 'fdset-id'] []", "['mine']", "{}", "('VM status: paused (prelaunch)', [])"]
    assert "at most 1 fd can be passed" in lines[4]
    assert lines[-1] == "m 1"


_PROGRAM = """
import os, sys
import hostel.libvirt as libvirt
uri, mock, xml, image = sys.argv[1:]
c = libvirt.open(uri)
d = c.defineXML(open(xml).read())
with open(image, "r+b") as file:
    print(d.FDAssociate("image", [file.fileno()]))
d.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
screen = d.openGraphicsFD(0)
print(os.read(screen, 12).decode().strip())
os.close(screen)
d.destroy()
try:
    d.createWithFiles([0])
except libvirt.libvirtError as error:
    print(error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT)
d.undefine()
c = libvirt.open(mock)
d = c.createXMLWithFiles("<domain type='test'><name>b</name><memory>1</memory><os><type>hvm</type></os></domain>", [0])
print(d.name(), d.ID() > 0)
d = c.defineXML("<domain type='test'><name>a</name><memory>1</memory><os><type>hvm</type></os></domain>")
print(d.createWithFiles([0]), d.ID() > 0)
"""


@pytest.mark.parametrize("where", ["here", "daemon"])
def test_programs_give_files_and_are_given_some(tmp_path: Path, disk: Path, where: str) -> None:
    screen = "<graphics type='vnc' autoport='yes'/><video><model type='vga'/></video></devices>"
    (tmp_path / "g.xml").write_text(_XML.format(said=tmp_path / "said").replace("</devices>", screen))
    names = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_DATA_HOME")
    with hosteld.process() as daemon:
        uris = [daemon.uri(uri) if where == "daemon" else uri for uri in ("qemu:///session", "test:///default")]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *uris, str(tmp_path / "g.xml"), str(disk)],
            capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, **{name: str(tmp_path / name) for name in names}},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0", "RFB 003.008", "True", "b True", "0 True"]
