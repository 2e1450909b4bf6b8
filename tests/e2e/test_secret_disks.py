"""Disks that open with a secret: QEMU gets its value, and nobody else does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph, objects
from hostel.block.node import BlockNode
from hostel.drivers.base import DomainRef, DomainState, StartFlag
from hostel.drivers.base.block import BlockCopyFlag, BlockJobAbortFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.events import EventBus
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.secret.driver import VaultSecretDriver
from hostel.drivers.secret.vault import DiskVault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support import image as image_support
from support.chains import wait_for_job
from support.fast_keys import fast_keys

__all__ = ["fast_keys"]
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


@pytest.mark.usefixtures("deaf_guest")
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


ENCRYPTION = f"<encryption format='luks'><secret type='passphrase' uuid='{UUID}'/></encryption>"
TRANSIENT = BlockCopyFlag.TRANSIENT_JOB
MARK = bytes([0x9C]) * (64 << 10)


def plain_of(path: Path, fmt: str, offset: int = 0) -> bytes:
    """What an image holds once it is opened with the passphrase."""
    with opened(path, fmt) as node:
        return bytes(node.read(offset, len(MARK)))


@contextlib.contextmanager
def opened(path: Path, fmt: str, *, read_only: bool = True) -> Iterator[BlockNode]:
    with objects_of(PASSPHRASE) as key:
        options = {"key-secret": key} if fmt == "luks" else {"encrypt.key-secret": key}
        with graph.open(str(path), fmt, options=options, read_only=read_only) as node:
            yield node


@contextlib.contextmanager
def objects_of(value: bytes) -> Iterator[str]:
    objects.add("passphrase", objects.Secret(value))
    try:
        yield "passphrase"
    finally:
        objects.remove("passphrase")


@pytest.mark.parametrize(("kept", "fmt"), [("raw", "luks"), ("qcow2", "qcow2")])
def test_copies_overlays_and_backups_are_encrypted_where_that_is_said(tmp_path: Path, kept: str, fmt: str) -> None:
    directories = Directories.under(tmp_path / "home")
    driver = QemuDriver(directories)
    base, copy, over, backup = (tmp_path / name for name in ("base", "copy", "over", "backup"))
    image_support.qemu_img("create", "-q", "-f", "qcow2", base, "1M")
    image_support.write(base, "qcow2", (0, MARK))
    ref = driver.domain_define_xml(
        "<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory><os><type>hvm</type></os><devices>"
        f"<disk><driver name='qemu' type='qcow2'/><source file='{base}'/><target dev='vda'/></disk></devices></domain>"
    )
    driver.domain_create(ref, StartFlag.PAUSED)

    def copied() -> None:
        source = f"<source file='{copy}'>{ENCRYPTION}</source>"
        driver.domain_block_copy(
            ref, "vda", f"<disk type='file'><driver type='{kept}'/>{source}</disk>", flags=TRANSIENT
        )

    try:
        with pytest.raises(VirtError) as caught:
            copied()
        assert caught.value.code is ErrorCode.NO_SECRET
        assert not copy.exists()
        secret(directories, PASSPHRASE)
        copied()
        wait_for_job(driver, ref, ready=True)
        driver.domain_block_job_abort(ref, "vda", BlockJobAbortFlag.PIVOT)
        driver.domain_backup_begin(
            ref,
            f"<domainbackup><disks><disk name='vda' type='file'><driver type='{kept}'/>"
            f"<target file='{backup}'>{ENCRYPTION}</target></disk></disks></domainbackup>",
        )
        wait_for_job(driver, ref)
        driver.domain_snapshot_create_xml(
            ref,
            "<domainsnapshot><name>s</name><disks><disk name='vda'><driver type='qcow2'/>"
            f"<source file='{over}'>{ENCRYPTION}</source></disk></disks></domainsnapshot>",
            SnapshotCreateFlag.DISK_ONLY,
        )
        names = driver.domain_qemu_monitor_command(ref, '{"execute": "qom-list", "arguments": {"path": "/objects"}}')
        assert names.count("encryption-secret0") == 2  # of the copy and the overlay: the backup's has gone with it
    finally:
        driver.domain_destroy(ref)
    for path in (copy, backup):
        assert MARK[:512] not in path.read_bytes()
        assert plain_of(path, fmt) == MARK
    told = subprocess.run(["qemu-img", "info", "--output=json", str(over)], check=True, capture_output=True, text=True)
    assert json.loads(told.stdout)["encrypted"] is True
    # It starts from there again: an encrypted overlay on an encrypted copy.
    driver.domain_create(ref, StartFlag.PAUSED)
    driver.domain_destroy(ref)
    assert not [*(tmp_path / "home").rglob("*.secret")]


@pytest.mark.parametrize("runs", [True, False], ids=["running", "off"])
@pytest.mark.parametrize("inside", [True, False], ids=["of the source", "of the disk"])
@pytest.mark.parametrize("fmt", ["luks", "qcow2"])
def test_what_is_below_a_snapshot_stays_encrypted(tmp_path: Path, fmt: str, inside: bool, runs: bool) -> None:
    """A container that is taken for a plain image is read as it is, and written over when the snapshot is deleted."""
    directories = Directories.under(tmp_path / "home")
    secret(directories, PASSPHRASE)
    driver = QemuDriver(directories)
    base, kept = image(tmp_path / "base", fmt), "raw" if fmt == "luks" else fmt
    with opened(base, fmt, read_only=False) as node:
        node.pwrite(0, MARK)
        node.flush()
    where = f"<source file='{base}'>{ENCRYPTION}</source>" if inside else f"<source file='{base}'/>{ENCRYPTION}"
    ref = driver.domain_define_xml(
        "<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory><os><type>hvm</type></os><devices>"
        f"<disk><driver name='qemu' type='{kept}'/>{where}<target dev='vda'/></disk></devices></domain>"
    )
    if runs:
        driver.domain_create(ref, StartFlag.PAUSED)
    for name in ("one", "two"):
        xml = f"<domainsnapshot><name>{name}</name></domainsnapshot>"
        made = driver.domain_snapshot_create_xml(ref, xml, SnapshotCreateFlag.DISK_ONLY)
    if runs:
        driver.domain_destroy(ref)
    assert opens_encrypted(driver, ref)
    over = tmp_path / "base.two"
    alone = json.dumps({"driver": "qcow2", "file": {"driver": "file", "filename": str(over)}, "backing": None})
    subprocess.run(["qemu-io", "-c", "write -P 7 512k 64k", f"json:{alone}"], check=True, capture_output=True)
    for name in ("two", "one"):
        driver.domain_snapshot_delete(made._replace(name=name))
        assert opens_encrypted(driver, ref)
    assert not over.exists()
    assert plain_of(base, fmt) == MARK
    assert plain_of(base, fmt, 512 << 10) == bytes([7]) * len(MARK)


def opens_encrypted(driver: QemuDriver, ref: DomainRef) -> bool:
    """Whether the machine starts, and has an image that it decrypts."""
    driver.domain_create(driver.domain_lookup_by_name(ref.name), StartFlag.PAUSED)
    try:
        command = '{"execute": "query-named-block-nodes", "arguments": {"flat": true}}'
        nodes = json.loads(driver.domain_qemu_monitor_command(ref, command))["return"]
        return any(node["encrypted"] and node["drv"] in ("luks", "qcow2") for node in nodes)
    finally:
        driver.domain_destroy(ref)
