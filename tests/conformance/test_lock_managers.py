"""Machines that are kept apart by virtlockd: ours and libvirt's own, under one virtlockd."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.qemu.lockmanager.lockd import Lockd
from hostel.drivers.qemu.lockmanager.manager import Claim, Owner
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from support import image, locks
from support.locks import Peers, is_locked, virsh
from support.unprivileged import as_nobody

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virtlockd"),
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.skipif(os.getuid() != 0, reason="libvirtd of the system is root's"),
]
NOBODY_IS_SEEN = "no machine of this host is seen to hold it: another host may, or a program that is none"
BUSY = "resource busy: Lockspace resource '{}' is locked"


def lease(folder: Path, key: str) -> str:
    path = folder / "spaces"
    (path / "files").mkdir(parents=True, exist_ok=True)
    (path / "files" / key).touch()
    return f"<lease><lockspace>files</lockspace><key>{key}</key><target path='{path}'/></lease>"


def disk(path: Path, dev: str = "vda", fmt: str = "raw") -> str:
    return (
        f"<disk type='file'><driver name='qemu' type='{fmt}'/><source file='{path}'/>"
        f"<target dev='{dev}' bus='virtio'/></disk>"
    )


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    folder = tmp_path_factory.mktemp("locks")
    with locks.peers(folder, "lockd", f'file_lockspace_dir = "{folder}/spaces/files"\n') as found:
        yield found


def test_machines_with_one_lease_do_not_run_at_once(peers: Peers) -> None:
    one = lease(peers.folder, "one")
    for first, second in ((peers.ours, peers.theirs), (peers.theirs, peers.ours)):
        assert peers.create(first, "first", one) == ""
        assert peers.create(second, "second", one).startswith(BUSY.format("one"))
        assert virsh(first, "suspend", "first") == ""
        assert peers.create(second, "second", one) == ""
        assert virsh(first, "resume", "first").startswith(BUSY.format("one"))
        assert virsh(second, "destroy", "second") == ""
        assert virsh(first, "resume", "first") == ""
        assert peers.create(second, "second", one).startswith(BUSY.format("one"))
        assert virsh(first, "destroy", "first") == ""


def test_who_is_refused_is_told_who_has_it(peers: Peers) -> None:
    held = lease(peers.folder, "held")
    for uri in (peers.ours, peers.theirs):
        assert peers.create(uri, "holder", held) == ""
        why = peers.create(peers.ours, "other", held)
        assert why.startswith(f"{BUSY.format('held')}; it is held by process ")
        assert why.endswith(" (qemu-system-x86_64, machine holder)")
        assert virsh(uri, "destroy", "holder") == ""


def test_images_are_locked_while_they_are_written_to(peers: Peers) -> None:
    base, other = peers.folder / "base.qcow2", peers.folder / "other.raw"
    image.qemu_img("create", "-q", "-f", "qcow2", base, 1 << 20)
    other.write_bytes(bytes(1 << 20))
    (peers.folder / "disk.xml").write_text(disk(other, "vdb"))
    over, copy = peers.folder / "over.qcow2", peers.folder / "copy.qcow2"
    files = base, over, copy, other

    def locked(uri: str, *words: str) -> list[str]:
        assert virsh(uri, *words) == ""
        return [path.stem for path in files if is_locked(peers.lock_of(path))]

    for uri in (peers.ours, peers.theirs):
        assert peers.create(uri, "disks", disk(base, fmt="qcow2")) == ""
        assert locked(uri, "uri") == ["base"]
        # libvirt asks a guest to let go, and this one has nobody who would.
        assert locked(uri, "attach-device", "disks", str(peers.folder / "disk.xml")) == ["base", "other"]
        snapshot = ("snapshot-create-as", "disks", "--disk-only", "--no-metadata", "--diskspec")
        words = ("--diskspec", "vdb,snapshot=no")
        assert locked(uri, *snapshot, f"vda,snapshot=external,file={over}", *words) == ["over", "other"]
        assert locked(uri, "blockcommit", "disks", "vda", "--active", "--wait") == ["base", "over", "other"]
        assert locked(uri, "blockjob", "disks", "vda", "--pivot") == ["base", "other"]
        assert locked(uri, "blockcopy", "disks", "vda", str(copy), "--wait", "--transient-job") == [
            "base", "copy", "other",
        ]  # fmt: skip
        assert locked(uri, "blockjob", "disks", "vda", "--abort") == ["base", "other"]
        assert locked(uri, "suspend", "disks") == []
        assert locked(uri, "resume", "disks") == ["base", "other"]
        assert locked(uri, "destroy", "disks") == []
        over.unlink()
        copy.unlink()


def test_leases_come_and_go_with_a_machine_that_runs(peers: Peers) -> None:
    plugged, lines = lease(peers.folder, "plugged"), []
    file, path = peers.folder / "spaces/files/plugged", peers.folder / "lease.xml"
    for uri in (peers.ours, peers.theirs):
        said: list[object] = [peers.create(uri, "plain", "")]

        def of_machine(name: str, *commands: str, uri: str = uri, said: list[object] = said) -> None:
            said += [virsh(uri, *command.split(), name, str(path)) for command in commands]

        path.write_text(plugged)
        of_machine("plain", "attach-device", "update-device")
        said.append(is_locked(file))
        of_machine("plain", "detach-device", "detach-device")
        said.append(is_locked(file))
        path.write_text(plugged.replace("<target", "<target offset='512'"))
        of_machine("plain", "attach-device")
        path.write_text(locks.XML.format(name="stored", devices="", more=""))
        assert virsh(uri, "define", str(path)) == ""
        path.write_text(plugged)
        of_machine(
            "stored", *("attach-device --config",) * 2, "update-device --config", *("detach-device --config",) * 2
        )
        assert virsh(uri, "undefine", "stored") == virsh(uri, "destroy", "plain") == ""
        lines.append(said)
    assert lines[0] == lines[1]
    assert (lines[0][3], lines[0][6]) == (True, False)


def test_locks_go_with_a_machine_that_moves(peers: Peers) -> None:
    path = peers.folder / "moving.raw"
    path.write_bytes(bytes(1 << 20))
    moved = lease(peers.folder, "moved")
    where = [peers.ours, peers.theirs]
    assert peers.create(where[0], "moving", disk(path) + moved) == ""
    for _ in range(2):
        source, destination = where
        assert virsh(source, "migrate", "moving", destination, "--live", "--unsafe") == ""
        for uri in where:
            assert peers.create(uri, "late", moved).startswith(BUSY.format("moved"))
        assert is_locked(peers.lock_of(path))
        where.reverse()
    assert virsh(where[0], "destroy", "moving") == ""
    assert not is_locked(peers.lock_of(path))


def test_users_have_a_virtlockd_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="vl-"))  # short enough for a socket's path
    folder.chmod(0o777)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(folder))
    image, machine = folder / "image", Owner("4d1b3a10-0c7a-4b0e-8a0e-0f5d6c9b7a11", "own", 1, os.getpid())
    image.touch()
    image.chmod(0o666)
    claims = [Claim("", str(image))]

    def lock() -> tuple[bool, str, bool]:
        manager = Lockd(Directories.under(folder), is_privileged=False)
        manager.prepare()
        manager.acquire(machine, claims)
        was_locked = is_locked(image)
        try:
            manager.acquire(machine._replace(pid=1), claims)
        except VirtError as error:
            why = error.message
        manager.release(machine, claims)
        manager.release(machine, claims)
        return was_locked, why, is_locked(image)

    try:
        assert as_nobody(lock) == (True, f"{BUSY.format(image)}; {NOBODY_IS_SEEN}", False)
    finally:
        os.kill(int((folder / "libvirt/virtlockd.pid").read_text()), signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
