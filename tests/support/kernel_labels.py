"""What ``test_labels_in_kernel`` does in a kernel of its own: machines that it keeps to their files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hostel.drivers.base import StartFlag
from hostel.drivers.base.block import BlockCommitFlag, BlockJobAbortFlag
from hostel.drivers.base.dumping import DumpFlag
from hostel.drivers.base.peeking import PeekFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.qemu import process
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.monitor import connect
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.errors import QmpError, VirtError
from support import selinux_policy

IMAGES = Path("/run/images")
_XML = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}<memballoon model='none'/></devices>{body}
</domain>"""
_DISK = (
    "<disk type='file'><driver name='qemu' type='{kind}'/><source file='{path}'/>"
    "<target dev='{dev}' bus='virtio'/>{more}</disk>"
)


def _tool(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


def _image(name: str, *options: str) -> Path:
    path = IMAGES / name
    _tool("qemu-img", "create", "-q", *(options or ("-f", "raw")), path, "1M")
    return path


def disk(path: Path, dev: str = "vda", more: str = "", kind: str = "raw") -> str:
    return _DISK.format(kind=kind, path=path, dev=dev, more=more)


class Machine:
    """One that runs, with a driver that has not started it."""

    def __init__(self, name: str, devices: str, body: str = "") -> None:
        self.name = name
        QemuDriver(Directories.system()).domain_create_xml(
            _XML.format(name=name, devices=devices, body=body), StartFlag.PAUSED
        )
        self.driver = QemuDriver(Directories.system())
        self.ref = self.driver.domain_lookup_by_name(name)

    @property
    def status(self) -> Status:
        return Status.parse(Path(f"/run/hostel/qemu/{self.name}.xml").read_text())

    def opens(self, path: Path) -> str:
        """What QEMU says to a path that it is to open; nothing where it opens it."""
        with connect(process.ground(Path(self.status.run)) / "monitor") as qmp:
            try:
                qmp.execute(
                    "blockdev-add", driver="file", filename=str(path), **{"node-name": "other", "read-only": True}
                )
                qmp.execute("blockdev-del", **{"node-name": "other"})
            except QmpError as error:
                return error.desc
        return ""

    def close(self) -> None:
        self.driver.domain_destroy(self.ref)


@contextlib.contextmanager
def started(name: str, devices: str, body: str = "") -> Iterator[Machine]:
    machine = Machine(name, devices, body)
    try:
        yield machine
    finally:
        machine.close()


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except VirtError as error:
        return str(error)
    return "nothing"


def label(path: Path) -> str:
    """A file's context, without user and role, which are always the same."""
    return os.getxattr(path, "security.selinux").decode().rstrip("\0").removeprefix("system_u:object_r:")


def remembered(path: Path) -> dict[str, str]:
    names = [
        name for name in os.listxattr(path) if name.startswith("trusted.libvirt.security") and "timestamp" not in name
    ]
    return {name.rpartition(".")[2]: os.getxattr(path, name).decode() for name in names}


_TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"


def _ready() -> None:
    """Images have a place of their own, and machines a user."""
    with tempfile.TemporaryDirectory() as work:
        selinux_policy.load(Path(work))
    IMAGES.mkdir(mode=0o755)
    for place in Path("/var/lib").glob("swtpm-localca"):
        _tool("chown", "-R", "tss:tss", place)  # where root's swtpm_setup of tests before has left files of root's
    os.setxattr(IMAGES, "security.selinux", b"system_u:object_r:place_t:s0\0")
    configured()


def configured(*lines: str) -> None:
    """Say something in ``qemu.conf``."""
    folder = Directories.system().config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qemu.conf").write_text("\n".join(['user = "nobody"', 'group = "nogroup"', *lines, ""]))


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def selinux() -> None:
    """Machines with categories of their own."""
    _ready()
    driver = QemuDriver(Directories.system())
    assert driver.node_get_security_model() == ("selinux", "0")
    base = "<baselabel type='kvm'>system_u:system_r:svirt_t:s0</baselabel>"
    assert base in driver.connect_get_capabilities()
    low, plain, other, shared, cd = (_image(name) for name in ("low", "plain", "other", "shared", "cd"))
    top = _image("top", "-f", "qcow2", "-b", str(low), "-F", "raw")
    devices = (
        disk(top, kind="qcow2")
        + disk(plain, "vdb")
        + disk(shared, "vdc", "<shareable/>").replace("'raw'", "'raw' cache='writeback'")
    )
    devices += disk(cd, "sda").replace("<disk", "<disk device='cdrom'").replace("virtio", "sata")
    serial = "<serial type='file'><source path='/run/images/serial'/></serial>"
    channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    configured('stdio_handler = "file"')
    one = Machine("one", devices + serial + channel)
    configured()
    with contextlib.closing(one), started("two", disk(other) + _TPM) as two:
        ranges = [_range_of(machine) for machine in (one, two)]
        assert ranges[0] != ranges[1]
        mine = f"svirt_image_t:{ranges[0]}"
        assert [label(path) for path in (top, plain, IMAGES / "serial")] == [mine] * 3
        assert label(low) == label(cd) == "virt_content_t:s0" and label(shared) == "svirt_image_t:s0"
        assert remembered(plain) == {
            "selinux": "system_u:object_r:place_t:s0", "ref_selinux": "1", "dac": "+0:+0", "ref_dac": "1",
        }  # fmt: skip
        assert remembered(low) == remembered(shared) == {}
        assert label(other) == f"svirt_image_t:{ranges[1]}"
        # What the kernel keeps it from, with a file that its user may open.
        os.chmod(other, 0o666)
        assert "Permission denied" in one.opens(other) and "Permission denied" in two.opens(plain)
        assert one.opens(low) == "" == two.opens(shared)
        assert label(Path("/var/cache/hostel/qemu/log/one.log")) == mine
        state = Path(f"/var/lib/hostel/config/qemu/swtpm/{two.ref.uuid}")
        assert {label(path) for path in (state, *state.iterdir())} == {f"svirt_image_t:{ranges[1]}"}
        said = refusal(
            lambda: one.driver.domain_attach_device_flags(one.ref, disk(other, "sdy").replace("virtio", "usb"))
        )
        assert said.startswith("Requested operation is not valid: Setting different"), said
        _changes(one, mine)
        _keeps(one, mine)
    for path in (top, plain, other, IMAGES / "serial"):
        assert (label(path), remembered(path)) == ("place_t:s0", {}), path
    said = Path("/var/cache/hostel/qemu/log/two.log").read_text()
    assert "terminating on signal" in said, said  # which came through a pipe
    left = [path for name in ("ranges", "given") for path in Path("/run/hostel/qemu", name).glob("[!.]*")]
    assert left == [], left
    _labels(plain)


def _range_of(machine: Machine) -> str:
    """The range that a machine's process has, after a look at all that is said of it."""
    (context, enforcing), (owner, _) = machine.driver.domain_get_security_label_list(machine.ref)
    range = context.removeprefix("system_u:system_r:svirt_tcg_t:")
    assert range.startswith("s0:c") and enforcing and owner == "+65534:+65534", (context, owner)
    assert Path(f"/proc/{machine.status.pid}/attr/current").read_text().rstrip("\0") == context
    assert machine.driver.domain_get_security_label(machine.ref).label == context
    text = (
        f"<seclabel type='dynamic' model='selinux' relabel='yes'>\n    <label>{context}</label>\n"
        f"    <imagelabel>system_u:object_r:svirt_image_t:{range}</imagelabel>\n  </seclabel>"
    )
    assert text in machine.driver.domain_get_xml_desc(machine.ref)
    return range


def _changes(machine: Machine, mine: str) -> None:
    """What comes into a machine and leaves it, and images that change their places."""
    driver, ref = machine.driver, machine.ref
    new = _image("new")
    driver.domain_attach_device_flags(ref, disk(new, "sdx").replace("virtio", "usb"))
    assert label(new) == mine
    driver.domain_detach_device_flags(ref, disk(new, "sdx").replace("virtio", "usb"))
    _wait(lambda: "/run/images/new" not in driver.domain_get_xml_desc(ref) and label(new) == "place_t:s0")
    taken = "<domainsnapshot><disks><disk name='vda'><source file='/run/images/over'/></disk>"
    taken += "".join(f"<disk name='{name}' snapshot='no'/>" for name in ("vdb", "vdc", "sda"))
    driver.domain_snapshot_create_xml(ref, f"{taken}</disks></domainsnapshot>", SnapshotCreateFlag.DISK_ONLY)
    assert label(IMAGES / "over") == mine
    # An image that was only read is written while something is merged into it.
    driver.domain_block_commit(ref, "vda", str(IMAGES / "low"), flags=BlockCommitFlag.ACTIVE)
    assert label(IMAGES / "low") == mine
    _wait(lambda: "ready='yes'" in driver.domain_get_xml_desc(ref))
    driver.domain_block_job_abort(ref, "vda", BlockJobAbortFlag.PIVOT)
    _wait(lambda: label(IMAGES / "over") == "place_t:s0")
    assert label(IMAGES / "low") == mine
    driver.domain_block_copy(
        ref, "vdb", "<disk type='file'><driver type='raw'/><source file='/run/images/copy'/></disk>"
    )
    assert label(IMAGES / "copy") == label(IMAGES / "plain") == mine
    driver.domain_block_job_abort(ref, "vdb")
    _wait(lambda: label(IMAGES / "copy") == "place_t:s0")


def _keeps(machine: Machine, mine: str) -> None:
    """What QEMU writes into files that are given to it open, or made for it."""
    driver, ref = machine.driver, machine.ref
    assert driver.domain_memory_peek(ref, 0, 16, PeekFlag.PHYSICAL)
    path = Path("/run/images/dump")
    driver.domain_core_dump_with_format(ref, str(path), 0, DumpFlag.MEMORY_ONLY | DumpFlag.LIVE)
    assert path.read_bytes()[:4] == b"\x7fELF" and label(path) == "place_t:s0"
    saved = Path("/run/images/saved")
    driver.domain_save_flags(ref, str(saved))
    assert label(saved) == "place_t:s0" and label(IMAGES / "plain") == "place_t:s0"
    machine.ref = driver.domain_restore_flags(str(saved))
    assert label(saved) == "place_t:s0" and label(IMAGES / "plain").startswith("svirt_image_t:s0:c")


def _labels(image: Path) -> None:
    """Labels that documents ask for, and hosts."""
    driver = QemuDriver(Directories.system())
    custom = "system_u:system_r:svirt_custom_t:s0:c5,c6"
    static = f"<seclabel type='static' model='selinux' relabel='{{}}'><label>{custom}</label></seclabel>"
    for relabel, found in (("yes", "svirt_image_t:s0:c5,c6"), ("no", "place_t:s0")):
        with started("three", disk(image) if relabel == "yes" else "", static.format(relabel)) as machine:
            assert machine.driver.domain_get_security_label(machine.ref).label == custom
            assert label(image) == found
    said = f"<seclabel type='dynamic' model='selinux'><baselabel>{custom}</baselabel></seclabel>"
    with started("three", disk(image), said) as machine:
        assert machine.driver.domain_get_security_label(machine.ref).label.startswith(f"{custom[:34]}")
    with started("three", "", "<seclabel type='none' model='selinux'/>") as machine:
        assert machine.driver.domain_get_security_label(machine.ref).label.startswith("system_u:system_r:kernel_t:")
    said = refusal(lambda: Machine("three", "", static.format("no").replace(custom, "nonsense")))
    assert said == "unable to allocate socket security context 'nonsense': Invalid argument"
    wrong = static.format("no").replace("svirt_custom_t", "nosuch_t")
    assert refusal(lambda: Machine("three", "", wrong)) == (
        f"XML error: Invalid security label {custom.replace('svirt_custom_t', 'nosuch_t')}"
    )
    said = refusal(lambda: Machine("three", "", "<seclabel type='dynamic' model='apparmor'/>"))
    assert said == "unsupported configuration: Security driver model 'apparmor' is not available"
    configured("security_require_confined = 1")
    said = refusal(lambda: Machine("three", "", "<seclabel type='none' model='selinux'/>"))
    assert said.startswith("unsupported configuration: Unconfined guests are not allowed on this host")
    configured('security_driver = "apparmor"')
    assert "Security driver apparmor not enabled" in refusal(lambda: Machine("three", ""))
    configured("security_default_confined = 0")
    with started("three", "") as machine:
        assert "selinux" not in machine.driver.domain_get_xml_desc(machine.ref)
    configured('security_driver = "none"')
    assert driver.node_get_security_model() == ("none", "0")


_TEMPLATE = """#include <tunables/global>

profile LIBVIRT_TEMPLATE flags=(attach_disconnected) {
  #include <abstractions/base>
  #include <abstractions/nameservice>
  capability,
  signal (receive),
  ptrace (readby),
  unix,
  /{dev,proc,sys}/** r,
  /dev/{null,ptmx,pts/*} rw,
  /usr/share/** r,
  /usr/bin/qemu-system-x86_64 rmix,
}
"""
FOLDER = Path("/etc/apparmor.d/libvirt")


def apparmor() -> None:
    """Machines with profiles of their own."""
    _tool("mount", "-t", "securityfs", "none", "/sys/kernel/security")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "TEMPLATE.qemu").write_text(_TEMPLATE)
    IMAGES.mkdir(mode=0o755)
    configured()
    driver = QemuDriver(Directories.system())
    assert driver.node_get_security_model() == ("apparmor", "0")
    assert "<model>apparmor</model>\n      <doi>0</doi>\n    </secmodel>" in driver.connect_get_capabilities()
    low, other = _image("low"), _image("other")
    top = _image("top", "-f", "qcow2", "-b", str(low), "-F", "raw")
    serial = "<serial type='file'><source path='/run/images/serial'/></serial>"
    with started("one", disk(top, kind="qcow2") + serial) as one, started("two", disk(other)) as two:
        name = f"libvirt-{one.ref.uuid}"
        assert one.driver.domain_get_security_label_list(one.ref) == [(name, True), ("+65534:+65534", False)]
        assert Path(f"/proc/{one.status.pid}/attr/current").read_text().strip() == f"{name} (enforce)"
        text = f"<seclabel type='dynamic' model='apparmor' relabel='yes'>\n    <label>{name}</label>\n"
        assert f"{text}    <imagelabel>{name}</imagelabel>\n" in one.driver.domain_get_xml_desc(one.ref)
        os.chmod(other, 0o666)
        assert "Permission denied" in one.opens(other) and "Permission denied" in two.opens(top)
        assert one.opens(low) == "" == two.opens(other)
        _profile_changes(one, name)
    profiles = Path("/sys/kernel/security/apparmor/profiles").read_text()
    assert "libvirt-" not in profiles and [path.name for path in FOLDER.iterdir()] == ["TEMPLATE.qemu"], profiles
    static = "<seclabel type='static' model='apparmor'><label>{}</label></seclabel>"
    assert (
        refusal(lambda: Machine("three", "", static.format("nosuch"))) == "XML error: Invalid security label 'nosuch'"
    )
    based = "<seclabel type='dynamic' model='apparmor'><baselabel>x</baselabel></seclabel>"
    assert "Cannot set a base label with AppArmour" in refusal(lambda: Machine("three", "", based))
    with started("three", disk(low), "<seclabel type='none' model='apparmor'/>") as machine:
        assert machine.driver.domain_get_security_label(machine.ref) == ("", False)
    Path("/etc/image").write_bytes(bytes(1 << 20))
    said = refusal(lambda: Machine("three", disk(Path("/etc/image"))))
    assert (
        said.startswith("internal error: cannot load AppArmor profile") and "'/etc/image' is where no machine" in said
    )
    assert [path.name for path in FOLDER.iterdir()] == ["TEMPLATE.qemu"]


def _profile_changes(machine: Machine, name: str) -> None:
    """What comes into a machine and leaves it, what is given to it open, and what is merged."""
    driver, ref = machine.driver, machine.ref
    files = FOLDER / f"{name}.files"
    new = _image("new")
    assert "/run/images/new" not in files.read_text()
    driver.domain_attach_device_flags(ref, disk(new, "sdx").replace("virtio", "usb"))
    assert '"/run/images/new" rwk,' in files.read_text()
    driver.domain_detach_device_flags(ref, disk(new, "sdx").replace("virtio", "usb"))
    _wait(lambda: "/run/images/new" not in files.read_text())
    assert '"/run/images/low" rk,' in files.read_text()
    driver.domain_block_commit(ref, "vda", str(IMAGES / "low"), flags=BlockCommitFlag.ACTIVE)
    _wait(lambda: "ready='yes'" in driver.domain_get_xml_desc(ref))
    driver.domain_block_job_abort(ref, "vda", BlockJobAbortFlag.PIVOT)
    _wait(lambda: "/run/images/top" not in files.read_text())
    saved = IMAGES / "saved"
    driver.domain_save_flags(ref, str(saved))
    assert not files.exists()
    machine.ref = driver.domain_restore_flags(str(saved))
    assert "/run/images/saved" not in files.read_text() and '"/run/images/low" rwk,' in files.read_text()


if __name__ == "__main__":
    try:
        {"selinux": selinux, "apparmor": apparmor}[sys.argv[1]]()
    except BaseException:
        print(_tool("dmesg"))  # what the kernel refused
        raise
