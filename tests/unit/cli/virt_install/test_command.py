"""Whole command lines on the test hypervisor: what is made, what is refused, and what is left behind."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import hostel
from hostel.cli.output import Output
from hostel.cli.virt_install.arguments import parser
from hostel.cli.virt_install.legacy import convert
from hostel.cli.virt_install.main import main, run
from hostel.cli.virt_install.storage import Storage
from hostel.drivers.base.saving import SaveDriver
from hostel.drivers.store import Directories
from hostel.errors import HostelError
from hostel.objects import Connection
from support import qcow2

BASE = ["--name", "x", "--memory", "64", "--osinfo", "generic", "--noautoconsole"]


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    with hostel.open("test:///default", Directories.under(tmp_path / "home")) as connection:
        yield connection


class Ran:
    """One run of virt-install on an open connection."""

    def __init__(self, connection: Connection, *words: str, base: list[str] = BASE) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        options = parser().parse_args([*base, *words])
        for message in convert(options):
            self.err.write(f"{message}\n")
        output = Output(self.out, self.err, quiet=bool(options.xmlonly) or options.quiet)
        self.code = run(connection, options, output)

    @property
    def domain(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.out.getvalue())


def xml(connection: Connection, *words: str, base: list[str] = BASE) -> ElementTree.Element:
    return Ran(connection, *words, "--print-xml", base=base).domain


def test_an_import_is_started_and_kept(connection: Connection) -> None:
    Path("a.img").write_bytes(bytes(512))
    ran = Ran(connection, "--import", "--disk", "a.img", "--autostart")
    assert (ran.code, ran.out.getvalue().splitlines()[-1]) == (0, "Domain creation completed.")
    domain = connection.domain("x")
    assert (domain.is_active, domain.is_persistent, domain.autostart) == (True, True, True)


def test_debugging_shows_every_document(connection: Connection) -> None:
    Path("cd.iso").write_bytes(bytes(512))
    shown = Ran(connection, "--cdrom", "cd.iso", "--disk", "size=1", "--debug").err.getvalue()
    assert [line for line in shown.splitlines() if line.startswith("DEBUG")] == [
        "DEBUG    volume:",
        "DEBUG    first boot:",
        "DEBUG    domain:",
    ]
    assert shown.count("</domain>") == 2


def test_a_dry_run_makes_nothing(connection: Connection) -> None:
    before = [pool.name for pool in connection.pools()]
    ran = Ran(connection, "--import", "--disk", "size=1", "--disk", "new.img,size=1", "--dry-run")
    assert (ran.code, ran.out.getvalue()) == (0, "Dry run completed successfully\n")
    assert [pool.name for pool in connection.pools()] == before
    assert [domain.name for domain in connection.domains()] == ["test"]


def test_a_new_volume_is_named_after_the_machine_and_its_format(connection: Connection) -> None:
    disks = ["size=1", "size=1", "size=1,format=raw", "pool=default-pool,size=2"]
    assert Ran(connection, "--import", *(word for disk in disks for word in ("--disk", disk))).code == 0
    names = [volume.name for volume in connection.pool("default").volumes()]
    assert names == ["x-1.qcow2", "x.img", "x.qcow2"]
    assert connection.pool("default-pool").volume("x.qcow2").info().capacity == 2 * 1024**3


def test_a_failure_before_the_start_takes_back_volumes_and_pools(connection: Connection) -> None:
    taken = connection.domain("test").uuid
    ran = Ran(connection, "--import", "--disk", "size=1", "--disk", "a.qcow2,size=1", "--uuid", taken)
    assert ran.code == 1
    error = ran.err.getvalue().splitlines()
    assert "ERROR    operation failed: domain 'test' is already defined with uuid" in error[1]
    assert error[-2] == "  virsh --connect test:///default start x"
    assert [pool.name for pool in connection.pools()] == ["default-pool"]
    assert [domain.name for domain in connection.domains()] == ["test"]


def test_a_pool_that_was_there_keeps_its_other_volumes(connection: Connection) -> None:
    pool = connection.pool("default-pool")
    pool.create_volume(name="other", capacity=1024)
    ran = Ran(connection, "--import", "--disk", "pool=default-pool,size=1", "--uuid", connection.domain("test").uuid)
    assert ran.code == 1
    assert [volume.name for volume in pool.volumes()] == ["other"]


def test_a_name_in_use_is_refused_before_anything_begins(connection: Connection) -> None:
    with pytest.raises(HostelError, match="Guest name 'test' is already in use"):
        Ran(connection, "--import", "--disk", "size=1", "--name", "test")
    assert [pool.name for pool in connection.pools()] == ["default-pool"]


def test_a_disk_in_use_is_refused_unless_it_is_shared_or_the_check_is_off(connection: Connection) -> None:
    Path("a.img").write_bytes(bytes(512))
    assert Ran(connection, "--import", "--disk", "a.img,shareable=on").code == 0
    with pytest.raises(HostelError, match=r"is already in use by other guests \['x'\]. \(Use --check path_in_use=off"):
        Ran(connection, "--import", "--disk", "a.img", "--name", "y")
    assert Ran(connection, "--import", "--disk", "a.img,shareable=on", "--name", "y").code == 0
    ran = Ran(connection, "--import", "--disk", "a.img", "--name", "z", "--check", "path_in_use=off")
    assert ran.code == 0
    assert "Disk" in ran.err.getvalue()


def test_a_disk_that_a_machine_names_by_its_pool_is_in_use(connection: Connection) -> None:
    volume = connection.pool("default-pool").create_volume(name="v", capacity=1 << 20)
    by_pool = "source.pool=default-pool,source.volume=v"
    assert Ran(connection, "--import", "--disk", by_pool).code == 0
    for disk in (by_pool, volume.path):
        with pytest.raises(HostelError, match=r"is already in use by other guests \['x'\]"):
            Ran(connection, "--import", "--disk", disk, "--name", "y")


def test_an_address_in_use_is_refused(connection: Connection) -> None:
    words = ["--import", "--disk", "none", "--network", "user,mac=00:16:3e:00:00:01"]
    assert Ran(connection, *words).code == 0
    with pytest.raises(HostelError, match="MAC address '00:16:3E:00:00:01' is in use by another virtual machine"):
        Ran(connection, "--import", "--disk", "none", "--name", "y", "--network", "user,mac=00:16:3E:00:00:01")


def test_a_volume_is_found_by_its_path_in_a_pool(connection: Connection) -> None:
    connection.pool("default-pool").create_volume(name="v", capacity=1024)
    disk = xml(connection, "--import", "--disk", "/default-pool/v").find("devices/disk")
    assert disk is not None
    assert disk.find("source").get("file") == "/default-pool/v"  # type: ignore[union-attr]
    disk = xml(connection, "--import", "--disk", "source.pool=default-pool,source.volume=v").find("devices/disk")
    assert disk is not None
    assert disk.get("type") == "volume"


def later(action: object, connection: Connection) -> threading.Thread:
    def act() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any(domain.name == "x" and domain.is_active for domain in connection.domains()):
                break
            time.sleep(0.01)
        time.sleep(0.2)  # until it is waited for
        getattr(connection.domain("x"), str(action))()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("action", "last", "runs"),
    [("shutdown", "Restarting guest.", True), ("destroy", "User stopped the VM. Not rebooting.", False)],
)
def test_an_installation_that_is_waited_for_restarts_unless_the_user_stopped_it(
    connection: Connection, action: str, last: str, runs: bool
) -> None:
    Path("cd.iso").write_bytes(bytes(512))
    thread = later(action, connection)
    ran = Ran(connection, "--cdrom", "cd.iso", "--disk", "size=1", "--wait", "-1")
    thread.join()
    lines = ran.out.getvalue().splitlines()
    assert lines[-4:] == [
        "Waiting for the installation to complete.",
        "Domain has shutdown. Continuing.",
        "Domain creation completed.",
        last,
    ]
    domain = connection.domain("x")
    assert domain.is_active == runs
    assert "cd.iso" not in domain.xml()


def test_the_first_document_boots_the_medium_and_stops_at_a_reboot(connection: Connection) -> None:
    Path("cd.iso").write_bytes(bytes(512))
    assert Ran(connection, "--cdrom", "cd.iso", "--disk", "size=1").code == 0
    live = ElementTree.fromstring(connection.domain("x").xml())
    kept = ElementTree.fromstring(connection.domain("x").xml(inactive=True))
    assert [boot.get("dev") for boot in live.iterfind("os/boot")] == ["cdrom", "hd"]
    assert [boot.get("dev") for boot in kept.iterfind("os/boot")] == ["hd"]
    assert (live.findtext("on_reboot"), kept.findtext("on_reboot")) == ("destroy", "restart")


@pytest.mark.parametrize(
    "words",
    [
        "--virt-type test --name centos7 --ram 1024 --cdrom={dir}/c.iso --disk path={dir}/centos7.raw "
        "--network network=default --graphics vnc,listen=0.0.0.0 --noautoconsole",
        "--virt-type test --name m1 --ram 4096 --vcpus 4 --cdrom={dir}/c.iso --disk path={dir}/centos7.raw "
        "--network bridge=br0 --graphics vnc,listen=0.0.0.0 --noautoconsole",
    ],
)
def test_what_people_type_first_works_as_written(connection: Connection, words: str, tmp_path: Path) -> None:
    for name in ("c.iso", "centos7.raw"):
        (tmp_path / name).write_bytes(bytes(512))
    assert Ran(connection, *words.format(dir=tmp_path).split(), base=[]).code == 0
    assert connection.domain("centos7" if "centos7 " in words else "m1").is_active


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--unattended"], "OS 'generic' does not support unattended installation"),
        (["--unattended", "profile=desktop,product-key=1,reg-login=me"], "does not support unattended installation"),
        (["--unattended", "admin-password-file=nosuch"], "admin-password-file=nosuch: No such file"),
        (["--unattended", "nosuch=1"], "Unknown --unattended options: \\['nosuch'\\]"),
        (["--unattended", "profile"], "Option 'profile' had no value set"),
    ],
)
def test_an_unattended_installation_is_refused_with_what_to_do(
    words: list[str], message: str, connection: Connection
) -> None:
    with pytest.raises(HostelError, match=message):
        Ran(connection, "--import", "--disk", "none", *words)
    assert [domain.name for domain in connection.domains()] == ["test"]


@pytest.mark.parametrize("text", ["", " ", "a" * 5000, "\x00", "\udcff", "=", ",", "'", "path=\n"])
@pytest.mark.parametrize("flag", ["--disk", "--network", "--boot", "--memory", "--name", "--cdrom", "--xml", "--check"])
def test_hostile_text_is_one_error_and_never_a_traceback(
    flag: str, text: str, connection: Connection, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    from hostel.cli.main import main as hostel_main

    words = [*BASE, "--connect", "test:///default", "--import", "--disk", "none", "--graphics", "none"]
    code = hostel_main(["virt-install", *words, flag, text, "--dry-run"])
    err = capsysbinary.readouterr().err
    assert b"internal error" not in err
    assert (code, err.count(b"ERROR")) in ((0, 0), (1, 1), (2, 0))


def test_sub_options_are_listed_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--disk=?", "--check", "help", "--osinfo", "list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("--disk options:\n  clearxml\n  address.base\n")
    assert "  path_in_use\n" in out


def test_known_systems_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--osinfo", "list"]) == 0
    assert "generic\n" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--version"], 0), (["--nosuch"], 2), (["--wait=x"], 2)])
def test_the_parser_of_arguments_ends_with_its_own_code(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert "virt-install" in "".join(capsys.readouterr()) or words == ["--version"]


@pytest.mark.parametrize(
    ("backing", "is_taken"), [("base.img", True), ("/etc/hostname", False), ("json:{}", False), ("../x", False)]
)
def test_an_imported_image_that_names_strange_files_is_refused_unless_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backing: str, is_taken: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    Path("base.img").write_bytes(bytes(1 << 20))
    Path("a.qcow2").write_bytes(qcow2.create(1 << 20, {"backing_file": backing, "backing_fmt": "raw"}))
    with hostel.open("qemu:///session", Directories.under(tmp_path / "home")) as connection:
        words = ["--import", "--disk", "a.qcow2", "--dry-run", "--virt-type", "qemu"]
        if is_taken:
            assert Ran(connection, *words).code == 0
        else:
            with pytest.raises(HostelError, match=r"is not taken as it is.*--check trust=off"):
                Ran(connection, *words)
        assert Ran(connection, *words, "--check", "trust=off").code == 0


@pytest.mark.parametrize("head", [b"LUKS\xba\xbe\0\1", b"vhdxfile"])
def test_a_backing_file_of_a_format_of_no_volume_is_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    Path("base").write_bytes(head.ljust(1 << 20, b"\0"))
    with hostel.open("qemu:///session", Directories.under(tmp_path / "home")) as connection:
        disk = "path=n.qcow2,size=0.01,backing_store=base"
        words = ["--import", "--virt-type", "qemu", "--disk"]
        assert xml(connection, *words, disk).find("devices/disk/driver[@type='qcow2']") is not None
        with pytest.raises(HostelError, match="unknown volume format type luks"):
            Ran(connection, *words, f"{disk},backing_format=luks", "--print-xml")
        storage = Storage(connection, str(tmp_path))
        new = storage.plan(
            storage.place_of(str(tmp_path / "n.qcow2")), "n.qcow2", 0.01,
            sparse=True, format="qcow2", backing="base", backing_format=None,
        )  # fmt: skip
        storage.build(new)
        told = ElementTree.fromstring(connection.volume(new.path).xml()).find("backingStore/format")
        assert told is not None and told.get("type") == "raw"


EXISTING = """<domain type='test'><name>old</name><uuid>12345678-1234-4234-8234-123456789abc</uuid>
<memory>65536</memory><os><type arch='i686'>hvm</type><kernel>/old</kernel></os><devices>
<disk type='file' device='disk'><source file='/a'/><target dev='hda' bus='ide'/><boot order='1'/></disk>
<disk type='block' device='cdrom'><source dev='/dev/sr0'/><target dev='hdc' bus='ide'/></disk></devices></domain>"""
AGAIN = ["--osinfo", "generic", "--noautoconsole", "--reinstall", "old"]


def test_a_machine_is_installed_again_and_keeps_what_it_has(connection: Connection) -> None:
    connection.define_domain(EXISTING)
    Path("cd.iso").write_bytes(bytes(2048))
    first = Ran(connection, "--cdrom", "cd.iso", "--print-xml", "1", base=AGAIN).domain
    assert [boot.get("dev") for boot in first.findall("os/boot")] == ["cdrom", "hd"]
    assert first.find("os/kernel") is None and first.find("devices/*/boot") is None
    assert [disk.get("type") for disk in first.findall("devices/disk")] == ["file", "file"]
    assert first.findtext("on_reboot") == "destroy"
    ran = Ran(connection, "--cdrom", "cd.iso", "--noreboot", "--disk", "none", "--wait", "0", base=AGAIN)
    assert "--disk is not looked at with --reinstall" in ran.err.getvalue()
    assert "--network" not in ran.err.getvalue()
    domain = connection.domain("old")
    assert domain.is_active and domain.is_persistent and domain.uuid == "12345678-1234-4234-8234-123456789abc"
    last = ElementTree.fromstring(domain.xml(inactive=True))
    assert (last.findtext("os/kernel"), last.findtext("on_reboot", "restart")) == ("/old", "restart")
    assert last.find("devices/disk/boot") is not None
    with pytest.raises(HostelError, match="'old' is already active"):
        Ran(connection, "--pxe", base=AGAIN)


def test_what_cannot_be_installed_again_is_refused(connection: Connection) -> None:
    connection.define_domain(EXISTING)
    with pytest.raises(HostelError, match="Could not find domain 'none'"):
        Ran(connection, "--pxe", base=["--reinstall", "none"])
    with pytest.raises(HostelError, match="An install method must be specified"):
        Ran(connection, base=AGAIN)
    connection.domain("old").start()
    hypervisor = connection.hypervisor
    assert isinstance(hypervisor, SaveDriver)
    hypervisor.domain_managed_save(hypervisor.domain_lookup_by_name("old"))
    with pytest.raises(HostelError, match="has a saved state"):
        Ran(connection, "--pxe", base=AGAIN)
