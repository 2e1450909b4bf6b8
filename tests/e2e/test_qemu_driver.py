"""The QEMU driver with real machines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainState, DomainXmlFlag, PausedReason, ShutoffReason, StartFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.monitor import Monitor
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from support.daemon import listens
from support.process import end

pytestmark = pytest.mark.qemu

XML = """<domain type='qemu'><name>{name}</name>{uuid}<memory unit='MiB'>32</memory><os><type>hvm</type></os>
<features><acpi/></features><devices>
<disk type='file' device='disk'><driver type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<serial type='pty'/><graphics type='vnc' port='-1'/>{more}</devices></domain>"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="e2e", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    yield tmp_path
    driver = QemuDriver(Directories.under(tmp_path))
    for ref in driver.connect_list_all_domains():
        if ref.id >= 0:
            driver.domain_destroy(ref)


@pytest.fixture
def driver(home: Path) -> QemuDriver:
    return QemuDriver(Directories.under(home))


def xml(home: Path, name: str = "g1", uuid: str = "", more: str = "") -> str:
    return XML.format(name=name, uuid=uuid and f"<uuid>{uuid}</uuid>", disk=home / "disk.img", more=more)


def pid_of(home: Path, name: str = "g1") -> int:
    status = Machines(Directories.under(home)).live(name)
    assert status is not None
    return status.pid


def wait_for(driver: QemuDriver, ref: DomainRef, state: DomainState, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while driver.domain_get_state(ref).state != state:
        assert time.monotonic() < deadline, driver.domain_get_state(ref)
        time.sleep(0.05)


def read_until(driver: QemuDriver, ref: DomainRef, text: bytes, seconds: float = 20) -> bytes:
    console, said, deadline = driver.domain_open_console(ref), b"", time.monotonic() + seconds
    while text not in said:
        assert time.monotonic() < deadline, said
        said += console.read(4096, 0.5) or b""
    console.close()
    return said


def vnc_port(driver: QemuDriver, ref: DomainRef) -> int:
    port = Domain.parse(driver.domain_get_xml_desc(ref)).devices.graphics[0].port
    assert port is not None
    return port


def test_a_domain_lives_through_every_state(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_create(driver.domain_define_xml(xml(home)))
    assert b"label=e2e" in read_until(driver, ref, b"done failures=0")
    port = vnc_port(driver, ref)
    with socket.create_connection(("127.0.0.1", port), 5) as vnc:
        assert vnc.recv(4) == b"RFB "
    driver.domain_suspend(ref)
    assert driver.domain_get_state(ref)[:2] == (DomainState.PAUSED, PausedReason.USER)
    driver.domain_resume(ref)
    driver.domain_reset(ref)
    assert b"boot=2" in read_until(driver, ref, b"done failures=0")
    driver.domain_shutdown(ref)
    wait_for(driver, ref, DomainState.SHUTOFF)
    assert driver.domain_get_state(ref).reason == ShutoffReason.SHUTDOWN
    again = driver.domain_create(ref)
    assert again.id > ref.id
    driver.domain_destroy(again)
    assert driver.domain_get_state(ref).reason == ShutoffReason.DESTROYED
    driver.domain_undefine(ref)
    with pytest.raises(VirtError) as caught:
        driver.domain_lookup_by_name("g1")
    assert caught.value.code == ErrorCode.NO_DOMAIN


def test_what_was_defined_before_it_was_refused_goes_on(driver: QemuDriver, home: Path) -> None:
    ref, pin = driver.domain_define_xml(xml(home)), "<vcpupin vcpu='0' cpuset='0'/>"
    document = Domain.parse(driver.domain_get_xml_desc(ref)).format()
    document = document.replace("<os>", f"<cputune>{2 * pin}</cputune><os>")
    document = document.replace("<devices>", "<devices><controller type='sata' index='0' model='ahci'/>")
    Machines(Directories.under(home)).definitions.write("g1", document)
    with pytest.raises(VirtError, match="duplicate vcpupin"):
        driver.domain_define_xml(document)
    ref = driver.domain_create(ref)
    driver.domain_attach_device_flags(ref, "<controller type='scsi' model='virtio-scsi'/>", Affect.LIVE | Affect.CONFIG)
    wrong = "<disk type='file'><source file='{}'/><target dev='sda' bus='scsi'/><address type='drive' bus='1'/></disk>"
    for affect in (Affect.LIVE, Affect.CONFIG):
        with pytest.raises(VirtError, match="SCSI controller only supports 1 bus"):
            driver.domain_attach_device_flags(ref, wrong.format(home / "disk.img"), affect)
    driver.domain_set_lifecycle_action(ref, 1, 0, Affect.LIVE | Affect.CONFIG)
    driver.domain_managed_save(ref)
    ref = driver.domain_create(ref)
    driver.domain_destroy(ref)


def test_transient_domain_is_gone_afterwards(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_create_xml(xml(home), StartFlag.PAUSED)
    assert driver.domain_get_state(ref).state == DomainState.PAUSED
    with pytest.raises(VirtError, match="cannot set autostart for transient domain"):
        driver.domain_set_autostart(ref, True)
    driver.domain_destroy(ref)
    assert driver.connect_list_all_domains() == []


def test_running_domain_becomes_transient_when_undefined(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_create(driver.domain_define_xml(xml(home)))
    driver.domain_undefine(ref)
    assert not driver.domain_is_persistent(ref)
    assert driver.domain_get_state(ref).state == DomainState.RUNNING


def test_another_process_finds_and_ends_a_running_machine(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_create(driver.domain_define_xml(xml(home)))
    code = (
        "import sys; from pathlib import Path; from hostel.drivers.qemu.driver import QemuDriver\n"
        "from hostel.drivers.store import Directories; d = QemuDriver(Directories.under(Path(sys.argv[1])))\n"
        "r = d.domain_lookup_by_id(int(sys.argv[2])); d.domain_destroy(r); print(r.name)"
    )
    argv = [sys.executable, "-c", code, str(home), str(ref.id)]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout == "g1\n"
    assert driver.domain_get_state(ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.DESTROYED)


def test_killed_qemu_is_noticed_with_its_reason(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_create(driver.domain_define_xml(xml(home)))
    os.kill(pid_of(home), signal.SIGKILL)
    wait_for(driver, ref, DomainState.SHUTOFF)
    state = driver.domain_get_state(ref)
    assert state.reason == ShutoffReason.CRASHED
    assert "killed by SIGKILL" in state.detail


def test_name_and_uuid_clashes_are_refused(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_define_xml(xml(home))
    assert driver.domain_define_xml(xml(home, uuid=ref.uuid)).uuid == ref.uuid
    kept = driver.domain_get_xml_desc(ref)
    with pytest.raises(VirtError, match=f"domain 'g1' already exists with uuid {ref.uuid}") as caught:
        driver.domain_define_xml(xml(home, more="<sound model='ich9'/>"))  # it gets one of its own
    assert caught.value.code == ErrorCode.OPERATION_FAILED
    assert driver.domain_get_xml_desc(ref) == kept
    other = "11111111-2222-3333-4444-555555555555"
    with pytest.raises(VirtError, match=f"domain 'g1' already exists with uuid {ref.uuid}"):
        driver.domain_define_xml(xml(home, uuid=other))
    with pytest.raises(VirtError, match=f"domain 'g1' is already defined with uuid {ref.uuid}"):
        driver.domain_define_xml(xml(home, name="g2", uuid=ref.uuid))


def test_missing_file_is_named_with_its_target_before_qemu_runs(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_define_xml(xml(home))
    (home / "disk.img").unlink()
    with pytest.raises(VirtError, match=r"disk\.img' of disk 'vda': No such file"):
        driver.domain_create(ref)
    assert not Machines(Directories.under(home)).log("g1").exists()


def test_optional_medium_that_is_missing_is_dropped(driver: QemuDriver, home: Path) -> None:
    cd = "<disk type='file' device='cdrom'><source file='/none.iso' startupPolicy='{}'/><target dev='hdc'/></disk>"
    ref = driver.domain_create(driver.domain_define_xml(xml(home, more=cd.format("optional"))))
    assert "/none.iso" not in driver.domain_get_xml_desc(ref)
    assert "/none.iso" in driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)
    driver.domain_destroy(ref)
    ref = driver.domain_define_xml(xml(home, uuid=ref.uuid, more=cd.format("requisite")))
    with pytest.raises(VirtError, match="of disk 'hdc'"):
        driver.domain_create(ref)


def test_qemus_own_last_words_are_the_error(driver: QemuDriver, home: Path) -> None:
    passed = "<qemu:commandline><qemu:arg value='-no-such-option'/></qemu:commandline></domain>"
    space = "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
    ref = driver.domain_define_xml(xml(home).replace("<domain", space).replace("</domain>", passed))
    with pytest.raises(VirtError, match=r"could not be started: .*invalid option"):
        driver.domain_create(ref)
    assert driver.domain_get_state(ref).reason == ShutoffReason.FAILED


def test_what_qemus_monitor_refuses_is_the_error(
    driver: QemuDriver, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Monitor.execute

    def refuse(self: Monitor, command: str, *given: Any, **arguments: Any) -> Any:
        name = "no-such-command" if command == "migrate-set-capabilities" else command
        return execute(self, name, *given, **arguments)

    monkeypatch.setattr(Monitor, "execute", refuse)
    ref = driver.domain_define_xml(xml(home, more="<serial type='pty'/>"))  # of which QEMU writes a line
    with pytest.raises(VirtError, match=r"could not be started: The command no-such-command has not been found"):
        driver.domain_create(ref)


def test_disk_that_somebody_writes_is_told_with_who_that_is(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_define_xml(xml(home))
    command = ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=f,filename={home}/disk.img"]
    export = ["--nbd-server", f"addr.type=unix,addr.path={home}/nbd", "--export", "nbd,id=e,node-name=f,writable=on"]
    with subprocess.Popen([*command, *export]) as other:
        deadline = time.monotonic() + 60
        while not listens(home / "nbd"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        try:
            with pytest.raises(VirtError) as caught:
                driver.domain_create(ref)
        finally:
            end(other)
    assert caught.value.code is ErrorCode.INTERNAL_ERROR
    assert caught.value.message.startswith(
        "internal error: domain 'g1' could not be started: Failed to get shared \"write\" lock (disk 'vda', "
    )
    assert caught.value.message.endswith(f"; it is open in process {other.pid} (qemu-storage-daemon)")
    assert "-blockdev" not in caught.value.message


def test_autostart_starts_what_is_marked(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_define_xml(xml(home))
    assert driver.connect_autostart() == []
    driver.domain_set_autostart(ref, True)
    assert [started.name for started in driver.connect_autostart()] == ["g1"]
    assert driver.connect_autostart() == []


def test_broken_definition_is_named_when_touched_and_kept(driver: QemuDriver, home: Path) -> None:
    driver.domain_define_xml(xml(home))
    path = home / "config/qemu/bad.xml"
    path.write_text("<domain")
    assert [ref.name for ref in driver.connect_list_all_domains()] == ["g1"]
    with pytest.raises(VirtError, match=r"bad\.xml' is broken"):
        driver.domain_lookup_by_name("bad")
    assert path.read_text() == "<domain"


def test_console_is_exclusive_unless_forced(driver: QemuDriver, home: Path) -> None:
    ref = driver.domain_create(driver.domain_define_xml(xml(home)))
    first = driver.domain_open_console(ref)
    with pytest.raises(VirtError, match="Active console session exists"):
        driver.domain_open_console(ref)
    driver.domain_open_console(ref, "serial0", force=True).close()
    first.close()
    driver.domain_open_console(ref).close()


@pytest.mark.parametrize(
    ("machine", "target"),
    [
        ("pc", "dev='hda' bus='ide'"),
        ("pc", "dev='sda' bus='scsi'"),
        ("pc", "dev='sda' bus='sata'"),
        ("pc", "dev='sda' bus='usb'"),
        ("q35", "dev='vda' bus='virtio'"),
        ("q35", "dev='sda' bus='sata'"),
    ],
)
def test_guest_boots_from_each_bus(driver: QemuDriver, home: Path, machine: str, target: str) -> None:
    text = xml(home).replace("<type>", f"<type machine='{machine}'>").replace("dev='vda' bus='virtio'", target)
    ref = driver.domain_create(driver.domain_define_xml(text))
    assert b"label=e2e" in read_until(driver, ref, b"done failures=0")


def test_qemu_takes_a_floppy_and_its_place_in_the_boot_order(driver: QemuDriver, home: Path) -> None:
    text = (
        xml(home).replace("dev='vda' bus='virtio'", "dev='fda' bus='fdc'").replace("device='disk'", "device='floppy'")
    )
    ref = driver.domain_create(driver.domain_define_xml(text.replace("</type>", "</type><boot dev='fd'/>")))
    assert driver.domain_get_state(ref).state == DomainState.RUNNING
    assert "isa-fdc.bootindexA=1" in Machines(Directories.under(home)).log("g1").read_text()
    assert read_until(driver, ref, b"HOSTEL-GUEST error=load")  # its loader ran; the rest it reads from hard disks only


def test_machines_that_start_at_the_same_time_get_ports_of_their_own(driver: QemuDriver, home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hostel.drivers.qemu.driver import QemuDriver\n"
        "from hostel.drivers.store import Directories; d = QemuDriver(Directories.under(Path(sys.argv[1])))\n"
        "print(flush=True); sys.stdin.read(); d.domain_create(d.domain_lookup_by_name(sys.argv[2]))"
    )
    names = [f"g{index}" for index in range(4)]
    for name in names:
        disk = home / f"{name}.img"
        disk.write_bytes((home / "disk.img").read_bytes())
        driver.domain_define_xml(xml(home, name).replace("disk.img", disk.name))
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in names
    ]  # fmt: skip
    for starter in starters:
        assert starter.stdout is not None
        with starter.stdout as said:
            assert said.readline() == b"\n"
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.close()
    for starter in starters:
        assert starter.stderr is not None
        assert starter.stderr.read() == b""
        assert starter.wait(60) == 0
        starter.stderr.close()
    ports = [vnc_port(driver, driver.domain_lookup_by_name(name)) for name in names]
    assert len(set(ports)) == len(names)
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), 5) as vnc:
            assert vnc.recv(4) == b"RFB "


def test_a_reference_to_a_domain_that_is_gone_is_to_no_other_of_its_name(home: Path, driver: QemuDriver) -> None:
    gone = driver.domain_define_xml(xml(home))
    driver.domain_undefine(gone)
    other = driver.domain_define_xml(xml(home))

    def refused(*calls: Callable[[DomainRef], object]) -> None:
        for call in calls:
            with pytest.raises(VirtError, match=f"no domain with matching uuid '{gone.uuid}'") as caught:
                call(gone)
            assert caught.value.code is ErrorCode.NO_DOMAIN

    refused(
        driver.domain_create,
        driver.domain_get_xml_desc,
        lambda ref: driver.domain_set_autostart(ref, autostart=True),
        lambda ref: driver.domain_rename(ref, "third"),
        driver.domain_undefine,
    )
    driver.domain_create(other, StartFlag.PAUSED)
    refused(
        driver.domain_get_state,
        driver.domain_managed_save,
        lambda ref: driver.domain_snapshot_create_xml(ref, "<domainsnapshot/>"),
        driver.domain_destroy,
        driver.domain_undefine,
    )
    assert driver.domain_get_state(other).state is DomainState.PAUSED
