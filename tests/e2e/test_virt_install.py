"""virt-install with real machines: what it makes boots, in every phase, and what fails leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostel
from hostel import guest
from hostel.cli.main import main
from hostel.drivers.base import DomainState
from hostel.drivers.qemu import probe
from hostel.objects import Connection
from support.guest import write_iso

pytestmark = pytest.mark.qemu


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with hostel.open("qemu:///session") as connection:
        yield connection
        for domain in connection.domains(active=True):
            domain.destroy()


def write_disk(path: Path, label: str = "disk", mode: guest.Mode = guest.Mode.POWEROFF) -> Path:
    path.write_bytes(guest.image(label=label, mode=mode, size=1 << 20))
    return path


def install(*words: str) -> int:
    log = ["--serial", f"pty,log.file={Path('serial.log').absolute()},log.append=on"]
    return main(["virt-install", "--name", "g1", "--memory", "32", *log, "--noautoconsole", *words])


def wait_until_off(connection: Connection, name: str = "g1") -> None:
    deadline = time.monotonic() + 30
    while connection.domain(name).state is not DomainState.SHUTOFF:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def boots() -> list[guest.Report]:
    """Every boot in the serial log, all of which came to their end."""
    reports = guest.parse_reports(Path("serial.log").read_text(errors="replace"))
    assert all(report.failures == 0 for report in reports), reports
    return reports


@pytest.mark.parametrize(
    ("system", "machine", "target"), [("generic", "pc", "hda"), ("linux2022", "q35", "vda"), ("win7", "q35", "sda")]
)
def test_an_image_is_booted_on_the_devices_that_its_system_knows(
    connection: Connection, system: str, machine: str, target: str
) -> None:
    write_disk(Path("disk.img"))
    assert install("--import", "--disk", "disk.img", "--osinfo", system) == 0
    xml = connection.domain("g1").xml(inactive=True)
    assert machine in xml
    assert target in xml
    wait_until_off(connection)
    (report,) = boots()
    assert (report.label, report.medium, report.failures) == ("disk", "disk", 0)


def test_without_a_system_a_linux_of_today_is_assumed_and_said(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_disk(Path("disk.img"))
    assert install("--import", "--disk", "disk.img") == 0
    assert "WARNING  No --osinfo given: assuming linux2022" in capsys.readouterr().err
    wait_until_off(connection)
    assert boots()[0].failures == 0


@pytest.mark.parametrize("mode", [guest.Mode.POWEROFF, guest.Mode.REBOOT])
def test_an_installation_ends_at_power_off_or_reboot_and_the_disk_is_booted_then(
    connection: Connection, mode: guest.Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    write_disk(Path("disk.img"))
    write_iso(Path("install.iso"), mode=mode)
    code = install("--cdrom", "install.iso", "--disk", "disk.img", "--osinfo", "generic", "--wait")
    assert code == 0
    assert capsys.readouterr().out.endswith("\nDomain creation completed.\nRestarting guest.\n")
    wait_until_off(connection)
    assert [report.medium for report in boots()] == ["cdrom", "disk"]
    xml = connection.domain("g1").xml()
    assert "install.iso" not in xml
    assert "<on_reboot>restart</on_reboot>" in xml


def test_an_installation_that_nobody_waits_for_runs_on(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_disk(Path("disk.img"))
    write_iso(Path("install.iso"), mode=guest.Mode.WAIT)
    assert install("--cdrom", "install.iso", "--disk", "disk.img", "--osinfo", "generic") == 0
    assert capsys.readouterr().out.endswith("to complete the installation process.\n")
    domain = connection.domain("g1")
    assert domain.is_active
    assert "install.iso" in domain.xml()
    assert "install.iso" not in domain.xml(inactive=True)


def test_a_volume_is_made_in_the_default_pool_and_written_by_the_guest(connection: Connection) -> None:
    write_iso(Path("install.iso"))
    assert install("--cdrom", "install.iso", "--disk", "size=0.01", "--wait", "--noreboot") == 0
    volume = connection.pool("default").volume("g1.qcow2")
    assert volume.info().capacity == int(0.01 * 1024**3) // 512 * 512 + 512
    assert connection.pool("default").autostart
    assert [(report.medium, report.disks[0].size) for report in boots()] == [("cdrom", volume.info().capacity)]


@pytest.mark.requires_tool("qemu-img")
def test_an_overlay_of_an_image_is_made_and_booted(connection: Connection) -> None:
    base = write_disk(Path("base.img").absolute(), mode=guest.Mode.POWEROFF)
    before = base.read_bytes()
    disk = "top.qcow2,size=0.01,backing_store=base.img"
    assert install("--import", "--disk", disk, "--osinfo", "linux2022") == 0
    wait_until_off(connection)
    assert boots()[0].write == "ok"
    assert base.read_bytes() == before
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "top.qcow2"]))
    assert (info["backing-filename"], info["backing-filename-format"]) == (str(base), "raw")
    subprocess.run(["qemu-img", "check", "-q", "top.qcow2"], check=True)
    assert connection.pool(Path.cwd().name).is_active


def test_a_volume_of_a_pool_is_booted_by_its_name(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    write_disk(tmp_path / "pool" / "one.img")
    pool = connection.define_pool(
        f"<pool type='dir'><name>p</name><target><path>{tmp_path}/pool</path></target></pool>"
    )
    assert install("--import", "--disk", "vol=p/one.img", "--osinfo", "generic") == 0
    assert pool.is_active
    wait_until_off(connection)
    assert boots()[0].label == "disk"


def test_what_cannot_start_leaves_no_volume_pool_or_domain(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        disks = ["--disk", "size=0.01", "--disk", "other.img,size=0.01,format=raw"]
        code = install("--import", *disks, "--graphics", f"vnc,port={port}", "--osinfo", "generic")
    assert code == 1
    error = capsys.readouterr().err
    assert "ERROR    internal error: domain 'g1' could not be started" in error
    assert error.endswith("otherwise, please restart your installation.\n")
    assert connection.pools() == []
    assert connection.domains() == []
    assert sorted(path.name for path in Path().iterdir()) == ["home", "serial.log"]  # QEMU's own
    assert not Path("home/data/images").exists()


def test_a_transient_machine_is_gone_when_it_stops(connection: Connection) -> None:
    write_disk(Path("disk.img"), mode=guest.Mode.WAIT)
    assert install("--import", "--disk", "disk.img", "--osinfo", "generic", "--transient") == 0
    connection.domain("g1").destroy()
    assert connection.domains() == []


def test_an_image_may_be_defined_without_being_booted(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_disk(Path("disk.img"))
    assert install("--import", "--disk", "disk.img", "--osinfo", "generic", "--noreboot", "--autostart") == 0
    assert capsys.readouterr().out.endswith(
        "You can restart your domain by running:\n  virsh --connect qemu:///session start g1\n"
    )
    assert not connection.domain("g1").is_active
    assert connection.domain("g1").autostart


def test_a_disk_that_another_machine_uses_is_refused(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = write_disk(Path("disk.img").absolute(), mode=guest.Mode.WAIT)
    assert install("--import", "--disk", "disk.img", "--osinfo", "generic") == 0
    capsys.readouterr()
    assert install("--name", "g2", "--import", "--disk", "disk.img", "--osinfo", "generic") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"ERROR    Disk {disk} is already in use by other guests ['g1']. "
        "(Use --check path_in_use=off or --check all=off to override)"
    )


def test_the_text_console_is_connected_until_the_guest_ends(connection: Connection) -> None:
    # What the guest says before the console is there is lost: so it says it at each of several starts.
    disk = guest.image(mode=guest.Mode.REBOOT, until=6)
    Path("disk.img").write_bytes(disk.ljust(1 << 20, b"\0"))
    words = ["--name", "g1", "--memory", "32", "--import", "--disk", "disk.img", "--nographics", "--osinfo", "generic"]
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "hostel", "virt-install", *words]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said, deadline = b"", time.monotonic() + 60
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        assert time.monotonic() < deadline, said
        if select.select([ours], [], [], 0.2)[0]:
            try:
                said += os.read(ours, 4096)
            except OSError:
                break
    os.close(ours)
    assert process.wait(60) == 0, said
    assert b"Running text console command: virsh --connect qemu:///session console g1" in said
    assert b"HOSTEL-GUEST" in said
    assert b"Domain creation completed." in said


def test_kvm_is_refused_where_it_runs_no_guest_and_qemu_is_named(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    if "<domain type='kvm'/>" in connection.capabilities():
        pytest.skip("KVM runs guests here")
    assert install("--import", "--disk", "size=1", "--virt-type", "kvm") == 1
    assert capsys.readouterr().err == (
        "ERROR    Host does not support domain type kvm for virtualization type 'hvm' with architecture 'x86_64': "
        "KVM runs no guest on this host; use --virt-type qemu\n"
    )
    assert connection.pools() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "network=nosuch"], "Network not found: no network with matching name 'nosuch'"),
        (["--network", "bridge=nosuch"], "this host has no bridge 'nosuch'; make it, or use --network user"),
        (
            ["--disk", "disk.img,cache=fast"],
            "/domain/devices/disk[2]/driver/@cache: Invalid value for attribute 'cache'",
        ),
        (["--machine", "foo"], "Host does not support domain type qemu with machine 'foo'"),
        (["--network", "user", "--virt-type", "xen"], "Host does not support domain type xen"),
    ],
)
def test_what_the_host_does_not_have_is_refused_before_anything_is_made(
    connection: Connection, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    write_disk(Path("disk.img"))
    assert install("--import", "--disk", "size=0.01", "--osinfo", "generic", *words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert [line for line in said.err.splitlines() if line.startswith("ERROR")] == [said.err.splitlines()[-1]]
    assert said.err.splitlines()[-1].startswith(f"ERROR    {message}")
    assert connection.pools() == []
    assert connection.domains() == []


def test_spice_that_this_qemu_lacks_is_refused_before_anything_is_made(
    connection: Connection, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "has_spice", lambda emulator, cache: False)
    assert install("--import", "--disk", "size=0.01", "--osinfo", "generic", "--graphics", "spice") == 1
    message = "--graphics spice is not supported by this connection yet; use --graphics vnc"
    assert capsys.readouterr().err.splitlines()[-1] == f"ERROR    {message}"
    assert connection.pools() == []


def test_a_machine_is_cloned_and_the_copy_boots(connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    write_disk(Path("disk.img"))
    assert install("--import", "--disk", "disk.img", "--osinfo", "generic", "--network", "user") == 0
    wait_until_off(connection)
    assert main(["virt-clone", "--original", "g1", "--name", "g2", "--auto-clone"]) == 0
    assert "Clone 'g2' created successfully." in capsys.readouterr().out
    assert Path("disk-clone.img").read_bytes() == Path("disk.img").read_bytes()
    log = ["--serial", f"clearxml=yes,type=pty,log.file={Path('clone.log').absolute()}"]
    assert main(["virt-xml", "g2", "--edit", *log, "--start"]) == 0
    wait_until_off(connection, "g2")
    (report,) = guest.parse_reports(Path("clone.log").read_text(errors="replace"))
    assert (report.label, report.failures) == ("disk", 0)


def test_a_volume_of_a_pool_is_cloned_in_its_format(connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["virt-install", "--name", "g1", "--memory", "32", "--disk", "size=0.01", "--osinfo", "generic",
                 "--boot", "hd", "--noreboot", "--noautoconsole"]) == 0  # fmt: skip
    assert main(["virt-clone", "--original", "g1", "--auto-clone"]) == 0
    (pool,) = connection.pools()
    assert {volume.name for volume in pool.volumes()} == {"g1.qcow2", "g1-clone.qcow2"}
    xml = connection.domain("g1-clone").xml()
    assert "type='qcow2'" in xml
    assert "g1-clone.qcow2" in xml
