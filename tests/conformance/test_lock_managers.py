"""Machines that are kept apart by virtlockd and by sanlock: ours and libvirt's own, under one of them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.qemu.lockmanager.lockd import Lockd
from hostel.drivers.qemu.lockmanager.manager import Claim, Owner
from hostel.drivers.qemu.lockmanager.sanlock import Sanlock
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from support import image, locks
from support.locks import Peers, UnderLockd, UnderSanlock, is_locked, virsh
from support.unprivileged import as_nobody

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virtlockd"),
    pytest.mark.requires_tool("sanlock"),
    pytest.mark.requires_tool("/usr/lib/libvirt/libvirt_sanlock_helper"),
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.skipif(os.getuid() != 0, reason="libvirtd of the system is root's"),
]
NOBODY_IS_SEEN = "no machine of this host is seen to hold it: another host may, or a program that is none"


def disk(path: Path, dev: str = "vda", fmt: str = "raw") -> str:
    return (
        f"<disk type='file'><driver name='qemu' type='{fmt}'/><source file='{path}'/>"
        f"<target dev='{dev}' bus='virtio'/></disk>"
    )


@pytest.fixture(scope="module", params=list(locks.KINDS))
def peers(request: pytest.FixtureRequest) -> Iterator[Peers]:
    with locks.peers(request.param) as found:
        yield found


def test_machines_with_one_lease_do_not_run_at_once(peers: Peers) -> None:
    one, busy = peers.lease("one"), peers.busy.format("one")
    for first, second in ((peers.ours, peers.theirs), (peers.theirs, peers.ours)):
        assert peers.create(first, "first", one) == ""
        assert peers.create(second, "second", one).startswith(busy)
        assert virsh(first, "suspend", "first") == ""
        assert peers.create(second, "second", one) == ""
        assert virsh(first, "resume", "first").startswith(busy)
        assert peers.destroy(second, "second") == ""
        assert virsh(first, "resume", "first") == ""
        assert peers.create(second, "second", one).startswith(busy)
        assert peers.destroy(first, "first") == ""


def test_who_is_refused_is_told_who_has_it(peers: Peers) -> None:
    held = peers.lease("held")
    for uri in (peers.ours, peers.theirs):
        assert peers.create(uri, "holder", held) == ""
        why = peers.create(peers.ours, "other", held)
        assert why.startswith(f"{peers.busy.format('held')}; it is held by process ")
        assert why.endswith(" (qemu-system-x86_64, machine holder)")
        assert peers.destroy(uri, "holder") == ""


@pytest.mark.parametrize("peers", ["sanlock"], indirect=True)
def test_a_lease_that_is_being_let_go_of_is_waited_for(peers: UnderSanlock) -> None:
    assert peers.hand_over(peers.folder / "passed") == ""


def test_images_are_locked_while_they_are_written_to(peers: Peers) -> None:
    base, other = peers.folder / "base.qcow2", peers.folder / "other.raw"
    image.qemu_img("create", "-q", "-f", "qcow2", base, 1 << 20)
    other.write_bytes(bytes(1 << 20))
    (peers.folder / "disk.xml").write_text(disk(other, "vdb"))
    over, copy = peers.folder / "over.qcow2", peers.folder / "copy.qcow2"

    def locked(uri: str, *words: str) -> list[str]:
        assert virsh(uri, *words) == ""
        return [path.stem for path in (base, over, copy, other) if peers.has_image(path)]

    snapshot = ("snapshot-create-as", "disks", "--disk-only", "--no-metadata", "--diskspec", "vdb,snapshot=no")
    for uri in (peers.ours, peers.theirs):
        assert peers.create(uri, "disks", disk(base, fmt="qcow2")) == ""
        assert locked(uri, "uri") == ["base"]
        assert locked(uri, "attach-device", "disks", str(peers.folder / "disk.xml")) == ["base", "other"]
        taken = ("--diskspec", f"vda,snapshot=external,file={over}")
        assert locked(uri, *snapshot, *taken) == ["over", "other"]
        assert locked(uri, "blockcommit", "disks", "vda", "--active", "--wait") == ["base", "over", "other"]
        assert locked(uri, "blockjob", "disks", "vda", "--pivot") == ["base", "other"]
        copied = ("blockcopy", "disks", "vda", str(copy), "--wait", "--transient-job")
        assert locked(uri, *copied) == ["base", "copy", "other"]
        assert locked(uri, "blockjob", "disks", "vda", "--abort") == ["base", "other"]
        assert locked(uri, "suspend", "disks") == []
        assert locked(uri, "resume", "disks") == ["base", "other"]
        assert peers.destroy(uri, "disks") == ""
        assert locked(uri, "uri") == []
        over.unlink()
        copy.unlink()


def test_leases_come_and_go_with_a_machine_that_runs(peers: Peers) -> None:
    plugged, lines = peers.lease("plugged"), []
    path = peers.folder / "lease.xml"
    for uri in (peers.ours, peers.theirs):
        said: list[object] = [peers.create(uri, "plain", "")]

        def of_machine(name: str, *commands: str, uri: str = uri, said: list[object] = said) -> None:
            said += [virsh(uri, *command.split(), name, str(path)) for command in commands]

        path.write_text(plugged)
        of_machine("plain", "attach-device", "update-device")
        said.append(peers.has("plugged"))
        of_machine("plain", "detach-device", "detach-device")
        said.append(peers.has("plugged"))
        path.write_text(plugged.replace("<target", "<target offset='512'"))
        of_machine("plain", "attach-device")
        path.write_text(locks.XML.format(name="stored", devices="", more=""))
        assert virsh(uri, "define", str(path)) == ""
        path.write_text(plugged)
        of_machine(
            "stored", *("attach-device --config",) * 2, "update-device --config", *("detach-device --config",) * 2
        )
        assert virsh(uri, "undefine", "stored") == peers.destroy(uri, "plain") == ""
        lines.append(said)
    assert lines[0] == lines[1]
    assert (lines[0][3], lines[0][6]) == (True, False)


def test_locks_go_with_a_machine_that_moves(peers: Peers) -> None:
    path = peers.folder / "moving.raw"
    path.write_bytes(bytes(1 << 20))
    moved = peers.lease("moved")
    where = [peers.ours, peers.theirs]
    assert peers.create(where[0], "moving", disk(path) + moved) == ""
    for _ in range(2):
        source, destination = where
        assert virsh(source, "migrate", "moving", destination, "--live", "--unsafe") == ""
        for uri in where:
            assert peers.create(uri, "late", moved).startswith(peers.busy.format("moved"))
        assert peers.has_image(path)
        where.reverse()
    assert peers.destroy(where[0], "moving") == ""
    assert not peers.has_image(path)


def test_machine_whose_lock_is_taken_meanwhile_does_not_move(peers: Peers) -> None:
    wanted, other = peers.lease("wanted"), peers.lease("other")
    assert peers.create(peers.ours, "stays", wanted) == ""
    assert peers.create(peers.theirs, "thief", other) == ""
    # What the destination would lock, another machine has there.
    xml = peers.folder / "stays.xml"
    xml.write_text(locks.dumped(peers.ours, "stays").replace("wanted", "other"))
    why = virsh(peers.ours, "migrate", "stays", peers.theirs, "--live", "--unsafe", "--xml", str(xml))
    assert why.startswith(peers.busy.format("other"))
    assert peers.has("wanted")
    assert virsh(peers.ours, "suspend", "stays") == ""  # which runs on
    for uri, name in ((peers.ours, "stays"), (peers.theirs, "thief")):
        assert peers.destroy(uri, name) == ""


def test_lock_of_which_a_killed_process_was_not_sure_is_settled(peers: Peers) -> None:
    assert peers.create(peers.ours, "killed", peers.lease("left")) == ""
    state = peers.folder / "home/state/run/qemu/killed.xml"
    lock = next(line for line in state.read_text().splitlines() if "<lock " in line).replace("sure='yes'", "sure='no'")
    for words, is_held in (("domstate",), True), (("suspend",), False):
        # As it is written down before the lock manager is asked for it, and before it is asked to let go.
        state.write_text(state.read_text().replace("sure='yes'", "sure='no'"))
        assert virsh(peers.ours, *words, "killed") == ""
        assert peers.has("left") is is_held
        assert state.read_text().count("<lock ") == state.read_text().count("sure='yes'") == int(is_held)
    head, rest = state.read_text().split("\n", 1)
    state.write_text(f"{head}\n{lock}\n{rest}")  # which nobody had given it yet
    assert virsh(peers.ours, "resume", "killed") == ""
    assert peers.has("left")
    assert peers.destroy(peers.ours, "killed") == ""


def test_sanlock_that_cannot_be_asked_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANLOCK_RUN_DIR", str(tmp_path))
    (tmp_path / "config").mkdir()
    settings = f'auto_disk_leases = 1\nhost_id = 1\ndisk_lease_dir = "{tmp_path}"\n'
    (tmp_path / "config/qemu-sanlock.conf").write_text(settings)
    manager = Sanlock(Directories.under(tmp_path))
    with pytest.raises(VirtError, match="No such file or directory; sanlock does not run: systemctl start sanlock"):
        manager.prepare()
    assert not (tmp_path / "__LIBVIRT__DISKS__").exists()
    with pytest.raises(VirtError, match="Failed to open socket to sanlock daemon: No such file or directory"):
        manager.register(Owner("", "m", 1, os.getpid()), "", tmp_path)


@pytest.mark.parametrize("peers", ["sanlock"], indirect=True)
def test_what_follows_when_leases_are_lost(peers: UnderSanlock) -> None:
    why = peers.create(peers.ours, "never", "", "<on_lockfailure>restart</on_lockfailure>")
    assert why.startswith("unsupported configuration: Failure action restart is not supported by sanlock")
    space = peers.folder / "lost"
    space.write_bytes(bytes(1 << 20))
    peers.sanlock("init", "-s", f"lost:0:{space}:0", "-o", "1")
    peers.sanlock("add_lockspace", "-s", f"lost:1:{space}:0", "-o", "1")
    for name, action in (("paused", "pause"), ("ended", "poweroff")):
        path = peers.folder / f"{name}.lease"
        path.write_bytes(bytes(1 << 20))
        peers.sanlock("init", "-r", f"lost:{name}:{path}:0")
        lease = f"<lease><lockspace>lost</lockspace><key>{name}</key><target path='{path}'/></lease>"
        assert peers.create(peers.ours, name, lease, f"<on_lockfailure>{action}</on_lockfailure>") == ""
    os.truncate(space, 0)  # and this host can no longer say that it lives
    deadline = time.monotonic() + 60
    while [locks.state(peers.ours, name) for name in ("paused", "ended")] != ["paused", ""]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    why = virsh(peers.ours, "resume", "paused")
    assert why.startswith(
        "Failed to acquire lock: No space left on device; this host takes no part in lockspace 'lost'"
    )
    assert peers.destroy(peers.ours, "paused") == ""


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
        assert as_nobody(lock) == (True, f"{UnderLockd.busy.format(image)}; {NOBODY_IS_SEEN}", False)
    finally:
        os.kill(int((folder / "libvirt/virtlockd.pid").read_text()), signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
