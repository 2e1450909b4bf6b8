"""Emulated TPMs with real swtpm: a guest's Linux finds one, it remembers, and it ends when its machine does."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from hostel.drivers.base import StartFlag, UndefineFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotRevertFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.objects import Connection
from support import image
from support.linux import Linux
from support.linux_guest import LinuxGuest
from support.session import disk

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("swtpm_setup"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("dpkg-deb"),
]
XML = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory>
<os><type>hvm</type></os><devices><tpm{model}><backend type='emulator'{more}</tpm></devices></domain>"""
UUID = "8b7c1a52-3f8e-4c4e-9a57-0d6f4c0f2a11"
SECRET = """<secret ephemeral='no' private='no'><uuid>1c0f5c9e-97f9-4bd4-a9f5-2c1e2a0d5f10</uuid>
<usage type='vtpm'><name>tpm</name></usage></secret>"""


def xml(more: str = " version='2.0'/>", *, model: str = "", name: str = "tpm") -> str:
    return XML.format(name=name, uuid=UUID, model=model, more=more)


def emulators(home: Path) -> list[int]:
    """The processes of swtpm that serve machines under a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"swtpm\0socket" in words and os.fsencode(home) in words:
                found.append(int(entry.name))
    return found


def test_linux_finds_a_tpm_that_remembers(
    connection: Connection, driver: QemuDriver, tmp_path: Path, linux: Linux
) -> None:
    guest = LinuxGuest(driver, linux, tmp_path)
    script = "cat /sys/class/tpm/tpm0/tpm_version_major; cat /sys/class/tpm/tpm0/device/description || :"
    script += "; ls -d /sys/class/tpm/tpm0/pcr-*"
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'><active_pcr_banks><sha384/></active_pcr_banks>"
    domain = guest.define(script, f"{tpm}</backend></tpm>")
    said = guest.run(domain).split()
    assert said[0] == "2"
    assert said[-1] == "/sys/class/tpm/tpm0/pcr-sha384"
    assert not emulators(tmp_path)
    (state,) = (tmp_path / "config/qemu/swtpm").iterdir()
    assert [item.name for item in state.iterdir()] == ["tpm2"]
    assert (state / "tpm2").stat().st_mode & 0o777 == 0o700
    driver.domain_undefine(domain)
    assert not state.exists()


def test_a_tpm_is_encrypted_and_stays_where_it_is_told_to(
    connection: Connection, driver: QemuDriver, tmp_path: Path
) -> None:
    secret = connection.secret.secret_define_xml(SECRET)
    more = f" version='1.2' persistent_state='yes'><encryption secret='{secret.uuid}'/></backend>"
    domain = driver.domain_define_xml(xml(more))
    with pytest.raises(VirtError) as caught:
        driver.domain_create(domain)
    assert caught.value.code is ErrorCode.NO_SECRET
    state = tmp_path / "config/qemu/swtpm" / UUID
    assert not state.exists()
    connection.secret.secret_set_value(secret, b"a passphrase")
    driver.domain_create(domain, StartFlag.PAUSED)
    words = (Path("/proc") / str(emulators(tmp_path)[0]) / "cmdline").read_bytes()
    assert b"passphrase" not in words
    assert not [*tmp_path.rglob("*.secret")]
    driver.domain_destroy(domain)
    assert not emulators(tmp_path)
    kept = {path.name: path.read_bytes() for path in (state / "tpm1.2").iterdir() if path.is_file()}
    assert "tpm-00.permall" in kept
    connection.secret.secret_set_value(secret, b"another")
    with pytest.raises(VirtError, match=r"tpm-emulator: .*decryption error"):
        driver.domain_create(domain)
    assert not emulators(tmp_path)
    driver.domain_undefine(domain)
    assert state.exists()
    with pytest.raises(VirtError, match="cannot both keep and delete TPM"):
        driver.domain_undefine(driver.domain_define_xml(xml(more)), UndefineFlag.TPM | UndefineFlag.KEEP_TPM)
    driver.domain_undefine(driver.domain_define_xml(xml(more)), UndefineFlag.TPM)
    assert not state.exists()


def test_a_tpm_of_a_machine_without_a_definition_outlives_that_it_goes_back(tmp_path: Path, driver: QemuDriver) -> None:
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "disk", 1 << 20)
    document = xml().replace("<devices>", f"<devices>{disk(tmp_path / 'disk', 'qcow2')}")
    domain = driver.domain_create_xml(document, StartFlag.PAUSED)
    state = tmp_path / "config/qemu/swtpm" / UUID / "tpm2/tpm2-00.permall"
    kept = state.read_bytes()
    one = driver.domain_snapshot_create_xml(domain, "<domainsnapshot/>", SnapshotCreateFlag.DISK_ONLY)
    driver.domain_revert_to_snapshot(one, SnapshotRevertFlag.PAUSED)
    assert state.read_bytes() == kept
    driver.domain_destroy(driver.domain_lookup_by_uuid(UUID))
    assert not state.exists()


def test_an_emulator_ends_with_qemu_whoever_ends_that(
    connection: Connection, driver: QemuDriver, tmp_path: Path
) -> None:
    domain = driver.domain_create_xml(xml(), StartFlag.PAUSED)
    assert len(emulators(tmp_path)) == 1
    status = Machines(Directories.under(tmp_path)).live(domain.name)
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while emulators(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert domain.name not in [ref.name for ref in driver.connect_list_all_domains()]
    assert not (tmp_path / "config/qemu/swtpm" / UUID).exists()  # a transient machine's goes with it


@pytest.mark.skipif(os.getuid() != 0, reason="only root's programs are somebody else")
def test_swtpm_of_root_s_machines_is_a_user_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    swtpm, qemu = 4244, 4242
    home = Path(tempfile.mkdtemp(prefix="tpm-"))  # what pytest makes is closed to others
    try:
        home.chmod(0o755)
        for folder in ("config", "authority", "xdg"):
            (home / folder).mkdir()
        os.chown(home / "authority", swtpm, swtpm)
        text = f'swtpm_user = "+{swtpm}"\nswtpm_group = "+{swtpm}"\nuser = "+{qemu}"\ngroup = "+{qemu}"\n'
        (home / "config/qemu.conf").write_text(text)
        # The host's own authority may have signed for root before.
        place, tool = home / "authority", "create_certs_tool"
        (home / "xdg/swtpm-localca.conf").write_text(
            f"statedir = {place}\nsigningkey = {place}/key\nissuercert = {place}/cert\ncertserial = {place}/serial\n"
        )
        (home / "xdg/swtpm_setup.conf").write_text(
            f"{tool} = /usr/bin/swtpm_localca\n{tool}_config = {home}/xdg/swtpm-localca.conf\n"
            f"{tool}_options = /etc/swtpm-localca.options\n"
        )
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
        driver = QemuDriver(Directories.under(home))
        domain = driver.domain_define_xml(xml())
        driver.domain_create(domain, StartFlag.PAUSED)
        try:
            (emulator,) = emulators(home)
            machine = Machines(Directories.under(home)).live("tpm")
            assert machine is not None
            owners = [Path(f"/proc/{pid}").stat().st_uid for pid in (emulator, machine.pid)]
            assert owners == [swtpm, qemu]
            state = home / "config/qemu/swtpm" / UUID / "tpm2"
            assert {path.stat().st_uid for path in (state, *state.iterdir())} == {swtpm}
            assert (state.stat().st_mode & 0o777, state.parent.stat().st_uid) == (0o700, 0)
            assert Path(f"/proc/{emulator}/status").read_text().count("CapEff:\t0000000000000000") == 1
        finally:
            driver.domain_destroy(domain)
        assert not emulators(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
