"""Disks that open with a secret: QEMU gets its value, and nobody else does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef, DomainState, StartFlag
from hostel.drivers.events import EventBus
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.secret.driver import VaultSecretDriver
from hostel.drivers.secret.vault import DiskVault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError

pytestmark = pytest.mark.qemu

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
PASSPHRASE = b"open sesame 7391"


def secret(directories: Directories, value: bytes, usage: str = "volume") -> None:
    driver = VaultSecretDriver(DiskVault(directories), EventBus(directories.state / "events"))
    what = "<volume>/v</volume>" if usage == "volume" else "<target>t</target>"
    found = driver.secret_define_xml(
        f"<secret ephemeral='no' private='yes'><uuid>{UUID}</uuid><usage type='{usage}'>{what}</usage></secret>"
    )
    driver.secret_set_value(found, value)


def image(path: Path, fmt: str) -> Path:
    key = path.with_name("key")
    key.write_bytes(PASSPHRASE)
    prefix = "" if fmt == "luks" else "encrypt."
    options = f"{prefix}key-secret=k,{prefix}iter-time=10" + ("" if fmt == "luks" else ",encrypt.format=luks")
    make = [sys.executable, "-m", "hostel", "qemu-img", "create", "-q", "--object", f"secret,id=k,file={key}"]
    make += ["-f", fmt, "-o", options, str(path), "1M"]
    subprocess.run(make, check=True)
    key.unlink()
    return path


def machine(driver: QemuDriver, path: Path, fmt: str) -> DomainRef:
    kept = "raw" if fmt == "luks" else fmt
    encryption = f"<encryption format='luks'><secret type='passphrase' uuid='{UUID}'/></encryption>"
    source = f"<source file='{path}'>{encryption}</source>"
    disk = f"<disk><driver name='qemu' type='{kept}'/>{source}<target dev='vda'/></disk>"
    return driver.domain_define_xml(
        "<domain type='qemu'><name>locked</name><memory unit='MiB'>32</memory><os><type>hvm</type></os>"
        f"<devices>{disk}</devices></domain>"
    )


@pytest.mark.parametrize("fmt", ["luks", "qcow2"])
def test_an_encrypted_disk_opens_and_its_passphrase_is_nowhere(tmp_path: Path, fmt: str) -> None:
    directories = Directories.under(tmp_path / "home")
    secret(directories, PASSPHRASE)
    driver = QemuDriver(directories)
    ref = machine(driver, image(tmp_path / "disk", fmt), fmt)
    driver.domain_create(ref, StartFlag.PAUSED)
    try:
        assert driver.domain_get_state(ref)[0] == DomainState.PAUSED
        assert PASSPHRASE.decode() not in Machines(directories).log("locked").read_text()
        kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.suffix == ".secret"]
        assert kept == []
        assert not any(PASSPHRASE in path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    finally:
        driver.domain_destroy(ref)


def test_a_wrong_passphrase_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    directories = Directories.under(tmp_path / "home")
    secret(directories, b"wrong")
    driver = QemuDriver(directories)
    ref = machine(driver, image(tmp_path / "disk", "luks"), "luks")
    with pytest.raises(VirtError, match="Invalid password"):
        driver.domain_create(ref)
    assert driver.domain_get_state(ref)[0] == DomainState.SHUTOFF
    assert not list((tmp_path / "home").rglob("*.secret"))


def test_a_secret_that_is_missing_or_for_something_else_is_refused(tmp_path: Path) -> None:
    directories = Directories.under(tmp_path / "home")
    driver = QemuDriver(directories)
    ref = machine(driver, image(tmp_path / "disk", "luks"), "luks")
    with pytest.raises(VirtError) as caught:
        driver.domain_create(ref)
    assert caught.value.code == ErrorCode.NO_SECRET
    secret(directories, PASSPHRASE, usage="iscsi")
    with pytest.raises(VirtError, match="not expected 'volume' type"):
        driver.domain_create(ref)


def test_an_encrypted_disk_comes_and_goes_while_the_machine_runs(tmp_path: Path) -> None:
    directories = Directories.under(tmp_path / "home")
    driver = QemuDriver(directories)
    path = image(tmp_path / "disk.qcow2", "qcow2")
    encryption = f"<encryption format='luks'><secret type='passphrase' uuid='{UUID}'/></encryption>"
    disk = (
        f"<disk><driver name='qemu' type='qcow2'/><source file='{path}'>{encryption}</source>"
        "<target dev='vdb' bus='virtio'/></disk>"
    )
    domain = driver.domain_create_xml(
        "<domain type='qemu'><name>open</name><memory unit='MiB'>32</memory><os><type>hvm</type></os>"
        "<features><acpi/></features></domain>",
        StartFlag.PAUSED,
    )
    try:
        with pytest.raises(VirtError) as caught:
            driver.domain_attach_device_flags(domain, disk)
        assert caught.value.code is ErrorCode.NO_SECRET
        secret(directories, PASSPHRASE)
        driver.domain_attach_device_flags(domain, disk)
        assert str(path) in driver.domain_qemu_monitor_command(domain, "info block", human=True)
        assert not [*(tmp_path / "home").rglob("*.secret")]
        objects = '{"execute": "qom-list", "arguments": {"path": "/objects"}}'
        assert "encryption-secret0" in driver.domain_qemu_monitor_command(domain, objects)
        driver.domain_resume(domain)
        with contextlib.suppress(VirtError):  # a guest without a system does not let go by itself
            driver.domain_detach_device_flags(domain, disk)
    finally:
        driver.domain_destroy(domain)
