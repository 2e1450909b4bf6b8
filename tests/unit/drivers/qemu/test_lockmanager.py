"""Which locks a machine needs, by virtlockd and by sanlock, and what of their settings is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hostel.drivers.qemu import document
from hostel.drivers.qemu.command.disk import number_images
from hostel.drivers.qemu.libvirt_daemon import runtime_folder
from hostel.drivers.qemu.lockmanager.claims import claims_of, has_disks_of_its_own
from hostel.drivers.qemu.lockmanager.holding import manager_for
from hostel.drivers.qemu.lockmanager.lockd import Lockd
from hostel.drivers.qemu.lockmanager.manager import Claim
from hostel.drivers.qemu.lockmanager.sanlock import Sanlock, SanlockSettings
from hostel.drivers.qemu.status import BlockJob
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from support import refused
from support.domain import QEMU

LEASE = "<lease><lockspace>s</lockspace><key>k</key><target path='/p'{more}/></lease>"
CHAIN = (
    "<disk type='file'><driver type='qcow2'/><source file='/top'/>"
    "<backingStore type='file'><format type='qcow2'/><source file='/middle'/>"
    "<backingStore type='file'><format type='qcow2'/><source file='/low'/>"
    "<backingStore type='file'><format type='qcow2'/><source file='/base'/><backingStore/>"
    "</backingStore></backingStore></backingStore><target dev='vda'/></disk>"
)


def disk(words: str = "type='file'", source: str = "file='/image'", more: str = "") -> str:
    return f"<disk {words}><source {source}/><target dev='vda' bus='virtio'/>{more}</disk>"


def lockd(home: Path, settings: str = "") -> Lockd:
    (home / "config").mkdir(exist_ok=True)
    (home / "config/qemu-lockd.conf").write_text(settings)
    return Lockd(Directories.under(home), is_privileged=False)


def domain(*devices: str) -> Domain:
    return document.parse(refused.document("".join(devices)), QEMU)


@pytest.mark.parametrize(
    ("device", "claims"),
    [
        (disk(), [Claim("", "/image")]),
        (disk(more="<shareable/>"), [Claim("", "/image", shared=True)]),
        (disk(more="<readonly/>"), []),
        (disk("type='file' device='cdrom'").replace("vda' bus='virtio", "hda' bus='ide"), []),
        (disk("type='block'", "dev='/dev/sda'"), [Claim("", "/dev/sda")]),
        (disk("type='network'", "protocol='nbd' name='x'"), []),
        (LEASE.format(more=""), [Claim("/p/s", "k", "/p")]),
        (CHAIN, [Claim("", "/top")]),
    ],
)
def test_what_is_written_to_is_locked(tmp_path: Path, device: str, claims: list[Claim]) -> None:
    assert list(claims_of(lockd(tmp_path), domain(device))) == claims


@pytest.mark.parametrize(
    ("job", "paths"),
    [
        (BlockJob(name="j", kind="commit", disk="vda", top=2, base=3), ["/top", "/low"]),
        (BlockJob(name="j", kind="commit", disk="vda", top=3, base=4), ["/top", "/middle", "/base"]),
        (BlockJob(name="j", kind="commit", disk="vda", top=3, base=4, ended="completed"), ["/top"]),
        (BlockJob(name="j", kind="commit", disk="vdb", top=3, base=4), ["/top"]),
    ],
)
def test_what_a_commit_changes_is_locked(tmp_path: Path, job: BlockJob, paths: list[str]) -> None:
    machine = domain(CHAIN)
    number_images(machine.devices.disks)
    assert [claim.name for claim in claims_of(lockd(tmp_path), machine, jobs=[job])] == paths


def test_images_are_locked_by_files_that_stand_for_them(tmp_path: Path) -> None:
    manager = lockd(tmp_path, 'file_lockspace_dir = "/spaces"\n')
    name = hashlib.sha256(b"/image").hexdigest()
    assert list(claims_of(manager, domain(disk()))) == [Claim("/spaces", name)]


@pytest.mark.parametrize(
    ("settings", "is_needed"),
    [
        ("", False),
        ("auto_disk_leases = 0\n", True),
        ("auto_disk_leases = 0\nrequire_lease_for_disks = 0\n", False),
        ("auto_disk_leases = 1\n", False),
    ],
)
def test_leases_are_needed_where_disks_have_no_locks_of_their_own(
    tmp_path: Path, settings: str, is_needed: bool
) -> None:
    manager = lockd(tmp_path, settings)
    assert manager.needs_leases is is_needed
    if "auto_disk_leases = 0" in settings:
        assert list(claims_of(manager, domain(disk()))) == []


def test_machine_without_leases_is_refused_where_they_are_needed(tmp_path: Path) -> None:
    lockd(tmp_path, "auto_disk_leases = 0\n")
    assert not has_disks_of_its_own(domain(disk(more="<shareable/>")))
    with pytest.raises(VirtError, match="disks were present, but no leases specified") as caught:
        manager_for("lockd", Directories.under(tmp_path), domain(disk()))
    assert caught.value.code is ErrorCode.CONFIG_UNSUPPORTED
    assert manager_for("nop", Directories.under(tmp_path), domain(disk())) is None


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (LEASE.format(more=" offset='512'"), "Offset must be zero for this lock manager"),
        (LEASE.format(more="").replace("<lockspace>s</lockspace>", ""), "Missing path or lockspace for lease resource"),
    ],
)
def test_leases_that_virtlockd_cannot_have_are_refused(tmp_path: Path, xml: str, why: str) -> None:
    with pytest.raises(VirtError, match=why):
        list(claims_of(lockd(tmp_path), domain(xml)))


def test_virtlockd_that_does_not_run_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostel.drivers.qemu.libvirt_daemon.find", lambda name: None)
    with pytest.raises(VirtError, match="virtlockd does not run: install libvirt-daemon") as caught:
        lockd(tmp_path).prepare()
    assert str(tmp_path / "libvirt/virtlockd-sock") in caught.value.message


def test_a_users_sockets_are_where_libvirt_has_them(tmp_path: Path) -> None:
    environment = {"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert runtime_folder(Directories.from_environment(environment)) == Path("/run/user/7")
    assert runtime_folder(Directories.from_environment({"HOME": "/h"})) == Path("/h/.cache")
    assert runtime_folder(Directories.under(tmp_path)) == tmp_path


def sanlock(home: Path, settings: str = "") -> Sanlock:
    (home / "config").mkdir(exist_ok=True)
    (home / "config/qemu-sanlock.conf").write_text(settings)
    return Sanlock(Directories.under(home))


def test_sanlock_has_leases_of_images_in_a_folder(tmp_path: Path) -> None:
    assert list(claims_of(sanlock(tmp_path), domain(disk()))) == []
    assert sanlock(tmp_path).needs_leases
    manager = sanlock(tmp_path, 'auto_disk_leases = 1\ndisk_lease_dir = "/leases"\n')
    name = hashlib.md5(b"/image").hexdigest()
    assert list(claims_of(manager, domain(disk()))) == [Claim("__LIBVIRT__DISKS__", name, f"/leases/{name}")]
    assert not manager.needs_leases
    lease = LEASE.format(more=" offset='1048576'")
    assert list(claims_of(manager, domain(lease))) == [Claim("s", "k", "/p", 1 << 20)]


@pytest.mark.parametrize(
    ("lease", "why"),
    [
        (LEASE.format(more="").replace("<key>k", "<key>" + 48 * "k"), "Resource name 'k+' exceeds 48 characters"),
        (LEASE.format(more="").replace("<lockspace>s", "<lockspace>" + 48 * "s"), "Resource lockspace 's+' exceeds 48"),
        (LEASE.format(more="").replace("/p'", "/" + 1023 * "p" + "'"), "Lease path '/p+' exceeds 1024 characters"),
    ],
)
def test_leases_that_sanlock_cannot_name_are_refused(tmp_path: Path, lease: str, why: str) -> None:
    with pytest.raises(VirtError, match=why):
        list(claims_of(sanlock(tmp_path), domain(lease)))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("auto_disk_leases = 1\n", "Automatic disk lease mode enabled, but no host ID is set; set host_id in"),
        ('auto_disk_leases = 1\nhost_id = 1\ndisk_lease_dir = "/nowhere"\n', "parent directory does not exist"),
    ],
)
def test_sanlock_that_has_no_place_for_leases_is_refused(tmp_path: Path, settings: str, why: str) -> None:
    with pytest.raises(VirtError, match=why):
        sanlock(tmp_path, settings).prepare()


def test_who_runs_sanlock_is_a_name_or_a_number(tmp_path: Path) -> None:
    sanlock(tmp_path, 'user = "root"\ngroup = "+7"\n')
    found = SanlockSettings.read(Directories.under(tmp_path))
    assert (found.user, found.group) == (0, 7)
    with pytest.raises(VirtError, match="there is no user 'nobody at all'"):
        sanlock(tmp_path, 'user = "nobody at all"\n')


@pytest.mark.parametrize("action", ["restart", "ignore"])
def test_what_sanlock_does_not_do_is_refused(tmp_path: Path, action: str) -> None:
    manager = sanlock(tmp_path)
    manager.check_action("poweroff")
    manager.check_action(None)
    with pytest.raises(VirtError, match=f"Failure action {action} is not supported by sanlock"):
        manager.check_action(action)
