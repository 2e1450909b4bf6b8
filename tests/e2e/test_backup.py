"""Checkpoints and backups of guests that run: whole and what changed, written to files and served over NBD."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostel import guest
from hostel.drivers.base import DestroyFlag, DomainRef, DomainState, StartFlag, UndefineFlag
from hostel.drivers.base.backup import (
    BackupBeginFlag,
    CheckpointDeleteFlag,
    CheckpointListFlag,
    CheckpointRef,
    CheckpointXmlFlag,
    JobType,
)
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.events import EventBus
from hostel.drivers.qemu import blockjob, process
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.monitor import Monitor
from hostel.drivers.secret.driver import VaultSecretDriver
from hostel.drivers.secret.vault import DiskVault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, QmpError, VirtError
from support import image
from support.kill_step import MAX_STEPS, killed_at
from support.nbd import Certificates
from support.pki import lock
from support.session import disk, domain_xml, held, reports, session, wait_for_report
from support.virsh import Ours

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20
SIZE = 4 * MIB
DISK_ONLY = SnapshotCreateFlag.DISK_ONLY
STEPS = tuple((Path(__file__).parents[2] / "src/hostel/drivers/qemu/backup").glob("*.py"))


class Machine:
    """A guest that counts its boots on ``vda``."""

    def __init__(self, home: Path, driver: QemuDriver) -> None:
        self.home, self.driver = home, driver
        image.qemu_img("create", "-q", "-f", "qcow2", home / "vda.qcow2", SIZE)
        image.write(home / "vda.qcow2", "qcow2", (0, guest.image(label="back", mode=guest.Mode.WAIT)))
        image.write(home / "vda.qcow2", "qcow2", (2 * MIB, b"\x5a" * 3 * 65536))
        self.ref: DomainRef = driver.domain_define_xml(domain_xml(home, disk(home / "vda.qcow2", "qcow2")))

    def boot(self, *, start: bool = False) -> int:
        """Start or reset; returns how many boots the disk counts."""
        before = len(reports(self.home))
        if start:
            self.ref = self.driver.domain_create(self.ref)
        else:
            self.driver.domain_reset(self.ref)
        boot = wait_for_report(self.home, before + 1).boot
        assert boot is not None
        return boot

    def stand(self) -> None:
        """Start it with a guest that does not run."""
        self.ref = self.driver.domain_create(self.ref, StartFlag.PAUSED)

    def write(self) -> None:
        """Write a sector as the guest's device does."""
        line = f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -q {guest.state_offset()} 512"'
        assert self.ask("human-monitor-command", {"command-line": line}) == ""

    def checkpoint(self, name: str) -> CheckpointRef:
        xml = f"<domaincheckpoint><name>{name}</name></domaincheckpoint>"
        return self.driver.domain_checkpoint_create_xml(self.ref, xml)

    def push(self, target: Path, *, since: str | None = None, checkpoint: str | None = None) -> int:
        """Write a backup to the end; returns how many bytes it holds."""
        incremental = f"<incremental>{since}</incremental>" if since else ""
        disks = f"<disks><disk name='vda' type='file'><target file='{target}'/><driver type='qcow2'/></disk></disks>"
        more = f"<domaincheckpoint><name>{checkpoint}</name></domaincheckpoint>" if checkpoint else None
        self.driver.domain_backup_begin(self.ref, f"<domainbackup>{incremental}{disks}</domainbackup>", more)
        self.settle()
        return allocated(target)

    def document(self) -> str | None:
        try:
            return self.driver.domain_backup_get_xml_desc(self.ref)
        except VirtError as error:
            assert error.code is ErrorCode.NO_DOMAIN_BACKUP
            return None

    def settle(self) -> None:
        deadline = time.monotonic() + 30
        while self.document() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ask(self, command: str, arguments: dict[str, str] | None = None) -> object:
        asked = json.dumps({"execute": command, "arguments": arguments or {}})
        said = self.driver.domain_qemu_monitor_command(self.ref, asked)
        return json.loads(said)["return"]

    def check(self, *bitmaps: str) -> None:
        """Only what the machine needs is left in QEMU."""
        assert self.document() is None
        nodes = self.ask("query-named-block-nodes")
        assert isinstance(nodes, list)
        assert {node["node-name"] for node in nodes if not node["node-name"].startswith("#")} == {
            "libvirt-1-format",
            "libvirt-1-storage",
        }
        found = {item["name"] for node in nodes for item in node.get("dirty-bitmaps", [])}
        assert found == set(bitmaps)
        assert self.ask("query-jobs") == []
        assert self.ask("query-block-exports") == []


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with session(tmp_path) as connection:
        assert isinstance(connection.hypervisor, QemuDriver)
        yield Machine(tmp_path, connection.hypervisor)


def allocated(path: Path) -> int:
    """How many bytes of an image are its own."""
    said = json.loads(image.real_qemu_img("map", "--output=json", "-f", "qcow2", str(path)))
    return sum(item["length"] for item in said if item["data"] and item["depth"] == 0)


def bitmaps(path: Path) -> set[str]:
    """The names of an image's bitmaps, be it in use."""
    said = json.loads(image.real_qemu_img("info", "-U", "--output=json", "-f", "qcow2", str(path)))
    return {item["name"] for item in said["format-specific"]["data"].get("bitmaps", [])}


def boots_of(home: Path, name: str, path: Path) -> int:
    """Start a copy of a backup, and see how many boots its disk counts."""
    with session(home) as connection:
        driver = connection.hypervisor
        assert isinstance(driver, QemuDriver)
        driver.domain_create(driver.domain_define_xml(domain_xml(home, disk(path, "qcow2"), name=name)))
        boot = wait_for_report(home, 1, name).boot
        assert boot is not None
        return boot


def test_backup_is_the_disk_and_the_next_one_what_changed(tmp_path: Path, machine: Machine) -> None:
    assert machine.boot(start=True) == 1
    whole, more = tmp_path / "whole", tmp_path / "more"
    size = machine.push(whole, checkpoint="one")
    machine.check("one")
    assert machine.boot() == 2
    assert 0 < machine.push(more, since="one", checkpoint="two") < size
    machine.check("one", "two")
    names = [item.name for item in machine.driver.domain_list_all_checkpoints(machine.ref)]
    assert names == ["one", "two"]
    image.real_qemu_img("rebase", "-u", "-b", str(whole), "-F", "qcow2", "-f", "qcow2", str(more))
    (tmp_path / "other").mkdir()
    assert boots_of(tmp_path / "other", "copy", more) == 3  # two, and the copy's own
    assert machine.boot() == 3


def test_changes_are_known_over_a_restart_and_not_after_a_kill(tmp_path: Path, machine: Machine) -> None:
    machine.boot(start=True)
    whole = machine.push(tmp_path / "whole", checkpoint="one")
    machine.driver.domain_destroy(machine.ref, DestroyFlag.GRACEFUL)
    machine.boot(start=True)
    assert 0 < machine.push(tmp_path / "some", since="one") < whole
    status = Machines(Directories.under(tmp_path)).live("guest")
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while machine.driver.domain_get_state(machine.ref).state != DomainState.SHUTOFF:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    machine.boot(start=True)
    assert machine.push(tmp_path / "all", since="one") == whole


@pytest.mark.requires_tool("openssl")
def test_disk_is_served_by_tls(tmp_path: Path, machine: Machine) -> None:
    machine.boot(start=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    xml = f"<domainbackup mode='pull'><server transport='tcp' tls='yes' name='127.0.0.1' port='{port}'/></domainbackup>"
    with pytest.raises(VirtError, match="backup TLS directory not configured"):
        machine.driver.domain_backup_begin(machine.ref, xml)
    authority = Certificates(tmp_path, "authority")
    folder, client = authority.make("server", server=True), authority.make("client", server=False)
    (tmp_path / "config/pki").mkdir(parents=True)
    folder.rename(tmp_path / "config/pki/qemu")
    for passphrase in ("", "", "open sesame"):  # what was made for one is gone for the next
        if passphrase:
            lock(tmp_path / "config/pki/qemu/server-key.pem", passphrase)
            directories = Directories.under(tmp_path)
            secrets = VaultSecretDriver(DiskVault(directories), EventBus(directories.state / "events"))
            secret = secrets.secret_define_xml("<secret><usage type='tls'><name>key</name></usage></secret>")
            (tmp_path / "config/qemu.conf").write_text(f'backup_tls_x509_secret_uuid = "{secret.uuid}"')
            with pytest.raises(VirtError, match="does not have a value"):
                machine.driver.domain_backup_begin(machine.ref, xml)
            secrets.secret_set_value(secret, passphrase.encode())
        machine.driver.domain_suspend(machine.ref)
        was = str(tmp_path / "was")
        image.real_qemu_img("convert", "-U", "-f", "qcow2", "-O", "raw", str(tmp_path / "vda.qcow2"), was)
        machine.driver.domain_backup_begin(machine.ref, xml)
        machine.driver.domain_resume(machine.ref)
        words = ["--object", f"tls-creds-x509,id=t,dir={client},endpoint=client", "--image-opts"]
        export = f"driver=nbd,host=localhost,port={port},export=vda"
        plain = subprocess.run(["qemu-img", "info", *words, export], capture_output=True, timeout=60, check=False)
        assert plain.returncode == 1 and b"TLS" in plain.stderr
        image.real_qemu_img("convert", *words, "-O", "raw", f"{export},tls-creds=t", str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "was").read_bytes()
        machine.driver.domain_abort_job(machine.ref)


def test_disk_is_served_as_it_was_until_the_job_is_ended(tmp_path: Path, machine: Machine) -> None:
    machine.boot(start=True)
    machine.checkpoint("one")
    machine.boot()
    socket = tmp_path / "nbd"
    server = f"<server transport='unix' socket='{socket}'/>"
    xml = f"<domainbackup mode='pull'><incremental>one</incremental>{server}</domainbackup>"
    machine.driver.domain_suspend(machine.ref)
    image.real_qemu_img("convert", "-U", "-f", "qcow2", "-O", "raw", str(tmp_path / "vda.qcow2"), str(tmp_path / "was"))
    machine.driver.domain_backup_begin(machine.ref, xml)
    assert socket.stat().st_mode & 0o077 == 0
    assert machine.document() is not None
    machine.driver.domain_resume(machine.ref)
    assert machine.boot() == 3
    export = f"nbd+unix:///vda?socket={socket}"
    image.real_qemu_img("convert", "-f", "raw", "-O", "raw", export, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "was").read_bytes()
    option = f"driver=nbd,export=vda,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:backup-vda"
    said = json.loads(image.real_qemu_img("map", "--output=json", "--image-opts", option))
    dirty = sum(item["length"] for item in said if not item["data"])
    assert 0 < dirty < SIZE
    code, out, err = Ours(tmp_path).run("domjobinfo guest")
    assert (code, err) == (0, "")
    assert [line.split()[:3] for line in out.split("\n")[:2]] == [
        ["Job", "type:", "Unbounded"],
        ["Operation:", "Backup"],
    ]
    with pytest.raises(VirtError, match="another backup"):
        machine.driver.domain_backup_begin(machine.ref, xml)
    machine.driver.domain_abort_job(machine.ref)
    assert Ours(tmp_path).run("domjobinfo guest") == (0, "Job type:         None        \n\n", "")
    assert Ours(tmp_path).run("list --with-checkpoint --name") == (0, "guest\n\n", "")
    assert Ours(tmp_path).run("list --without-checkpoint --name")[1].split() == []
    machine.check("one")
    assert not socket.exists()
    assert sorted(path.name for path in tmp_path.glob("vda*")) == ["vda.qcow2"]
    assert machine.boot() == 4


def test_next_backup_clears_away_what_qemu_did_not_remove(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Monitor.execute

    def refusing(self: Monitor, command: str, *given: Any, **arguments: Any) -> Any:
        if command in ("block-dirty-bitmap-remove", "block-export-del", "job-dismiss", "nbd-server-stop"):
            raise QmpError("GenericError", "not now")
        return execute(self, command, *given, **arguments)

    machine.ref = machine.driver.domain_create(machine.ref)
    machine.checkpoint("one")
    xml = (
        f"<domainbackup mode='pull'><incremental>one</incremental><server transport='unix' socket='{tmp_path}/nbd'/>"
        f"<disks><disk name='vda' type='file'><scratch file='{tmp_path}/scratch'/></disk></disks></domainbackup>"
    )
    machine.driver.domain_backup_begin(machine.ref, xml)
    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "execute", refusing)
        machine.driver.domain_abort_job(machine.ref)
    with pytest.raises(AssertionError):
        machine.check("one")
    machine.driver.domain_backup_begin(machine.ref, xml)
    machine.driver.domain_abort_job(machine.ref)
    machine.check("one")


@pytest.mark.parametrize("name", ["one", "backup-vda"])
def test_whole_backup_leaves_checkpoints_whatever_they_are_called(tmp_path: Path, machine: Machine, name: str) -> None:
    machine.ref = machine.driver.domain_create(machine.ref)
    machine.checkpoint(name)
    bitmap = f"exportbitmap='{name}'" if name == "one" else ""
    machine.driver.domain_backup_begin(
        machine.ref,
        f"<domainbackup mode='pull'><server transport='unix' socket='{tmp_path}/nbd'/><disks>"
        f"<disk name='vda' type='file' {bitmap}><scratch file='{tmp_path}/scratch'/></disk></disks></domainbackup>",
    )
    machine.driver.domain_abort_job(machine.ref)
    machine.check(name)


@pytest.mark.parametrize("kills", [False, True])
def test_backup_that_the_machine_outlives_not_leaves_nothing(tmp_path: Path, machine: Machine, kills: bool) -> None:
    scratch = f"<disks><disk name='vda' type='file'><scratch file='{tmp_path}/scratch'/></disk></disks>"
    server = f"<server transport='unix' socket='{tmp_path}/nbd'/>"
    machine.ref = machine.driver.domain_create(machine.ref)
    machine.driver.domain_backup_begin(machine.ref, f"<domainbackup mode='pull'>{server}{scratch}</domainbackup>")
    assert (tmp_path / "scratch").exists()
    if kills:
        with held(tmp_path) as running:
            os.kill(running.status.pid, signal.SIGKILL)
            assert process.ended(running.status.pid, running.status.started, 20)
        assert machine.driver.domain_get_state(machine.ref).state is DomainState.SHUTOFF
    else:
        machine.driver.domain_destroy(machine.ref)
    assert not (tmp_path / "scratch").exists()


def test_checkpoints_say_what_changed_and_are_forgotten(machine: Machine) -> None:
    driver = machine.driver
    with pytest.raises(VirtError, match="inactive domain"):
        machine.checkpoint("zero")
    machine.boot(start=True)
    one, two, three = (machine.checkpoint(name) for name in ("one", "two", "three"))
    with pytest.raises(VirtError, match="domain moment one already exists"):
        machine.checkpoint("one")
    machine.boot()
    document = driver.domain_checkpoint_get_xml_desc(one, CheckpointXmlFlag.SIZE | CheckpointXmlFlag.NO_DOMAIN)
    assert "size=" in document
    assert "<domain " not in document
    assert driver.domain_checkpoint_get_parent(three).name == "two"
    roots = driver.domain_list_all_checkpoints(machine.ref, CheckpointListFlag.ROOTS)
    assert [item.name for item in roots] == ["one"]
    below = driver.domain_checkpoint_list_all_children(one, CheckpointListFlag.DESCENDANTS)
    assert [item.name for item in below] == ["two", "three"]
    driver.domain_checkpoint_delete(two)
    assert driver.domain_checkpoint_get_parent(three).name == "one"
    machine.check("one", "three")
    driver.domain_destroy(machine.ref)
    with pytest.raises(VirtError, match="2 checkpoints"):
        driver.domain_undefine(machine.ref)
    driver.domain_checkpoint_delete(one, CheckpointDeleteFlag.CHILDREN | CheckpointDeleteFlag.METADATA_ONLY)
    driver.domain_undefine(machine.ref, UndefineFlag.NONE)


@pytest.mark.parametrize("how", ["base", "both", "neither"])
def test_disk_whose_base_was_replaced_is_backed_up_whole(tmp_path: Path, machine: Machine, how: str) -> None:
    top, base = tmp_path / "vda.qcow2", tmp_path / "base"
    top.rename(base)
    image.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    machine.boot(start=True)
    machine.checkpoint("one")
    machine.driver.domain_destroy(machine.ref, DestroyFlag.GRACEFUL)
    for path in {"base": [base], "both": [base, top], "neither": []}[how]:
        shutil.copy(path, tmp_path / "new")
        (tmp_path / "new").rename(path)
    if how == "base":
        image.write(base, "qcow2", (3 * MIB, b"\x77" * 65536))
    machine.boot(start=True)
    machine.push(tmp_path / "backup", since="one")
    said = json.loads(image.real_qemu_img("map", "--output=json", "-f", "qcow2", str(tmp_path / "backup")))
    held = sum(item["length"] for item in said if item["data"])
    assert (held > 3 * 65536) == (how == "base"), "what was not touched since is in the backup of a disk as a whole"


def test_checkpoint_is_not_made_of_a_bitmap_that_was_there(machine: Machine) -> None:
    machine.ref = machine.driver.domain_create(machine.ref)
    machine.driver.domain_checkpoint_delete(machine.checkpoint("one"), CheckpointDeleteFlag.METADATA_ONLY)
    with pytest.raises(VirtError, match="Bitmap already exists: one"):
        machine.checkpoint("one")
    assert machine.driver.domain_list_all_checkpoints(machine.ref) == []


def test_checkpoint_from_before_an_overlay_is_forgotten_below_it(machine: Machine) -> None:
    driver = machine.driver
    machine.boot(start=True)
    one, two = machine.checkpoint("one"), machine.checkpoint("two")
    driver.domain_snapshot_create_xml(machine.ref, "<domainsnapshot><name>s</name></domainsnapshot>", DISK_ONLY)
    three = machine.checkpoint("three")
    driver.domain_checkpoint_delete(one)
    assert bitmaps(machine.home / "vda.qcow2") == {"two"}
    driver.domain_checkpoint_delete(three)
    nodes = machine.ask("query-named-block-nodes")
    assert isinstance(nodes, list)
    formats = {node["node-name"]: node["ro"] for node in nodes if node["drv"] == "qcow2"}
    assert formats == {"libvirt-1-format": True, "libvirt-2-format": False}
    driver.domain_checkpoint_delete(two)
    assert bitmaps(machine.home / "vda.qcow2") == set()
    assert driver.domain_list_all_checkpoints(machine.ref) == []


def test_checkpoint_of_no_disk_is_there_all_the_same(machine: Machine) -> None:
    machine.boot(start=True)
    none = "<disks><disk name='vda' checkpoint='no'/></disks>"
    xml = f"<domaincheckpoint><name>none</name>{none}</domaincheckpoint>"
    found = machine.driver.domain_checkpoint_create_xml(machine.ref, xml)
    assert machine.driver.domain_list_all_checkpoints(machine.ref) == [found]
    machine.driver.domain_checkpoint_delete(found)
    assert machine.driver.domain_list_all_checkpoints(machine.ref) == []


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("<domainbackup><incremental>none</incremental></domainbackup>", "no domain checkpoint"),
        ("<domainbackup><disks><disk name='vdz'/></disks></domainbackup>", "no disk named 'vdz'"),
        ("<domainbackup mode='pull'/>", "server"),
        ("<domainbackup><incrementl>none</incrementl></domainbackup>", "/incrementl is not in the schema"),
        ("<domainbackup><disks><disk name='vda' bakcup='no'/></disks></domainbackup>", "/@bakcup is not in the schema"),
        ("<domainbackup><disks/></domainbackup>", "there has to be <disk>"),
        (
            "<domainbackup><disks><disk name='vda' type='file'><target file='b'/></disk></disks></domainbackup>",
            "'b' is not an absolute path",
        ),
        (
            "<domainbackup><disks><disk name='vda' type='file'><target file='/no/such'/></disk></disks></domainbackup>",
            "No such",
        ),
    ],
)
def test_backup_that_cannot_be_leaves_nothing(tmp_path: Path, machine: Machine, xml: str, words: str) -> None:
    machine.boot(start=True)
    with pytest.raises(VirtError, match=words):
        machine.driver.domain_backup_begin(
            machine.ref, xml, "<domaincheckpoint><name>new</name></domaincheckpoint>", BackupBeginFlag.NONE
        )
    assert machine.driver.domain_list_all_checkpoints(machine.ref) == []
    machine.check()
    assert sorted(path.name for path in tmp_path.glob("vda*")) == ["vda.qcow2"]


def test_virsh_keeps_checkpoints_and_ends_a_backup(tmp_path: Path, machine: Machine) -> None:
    machine.boot(start=True)
    virsh = Ours(tmp_path)
    said = []
    (tmp_path / "b.xml").write_text(
        f"<domainbackup mode='pull'><server transport='unix' socket='{tmp_path}/nbd'/></domainbackup>"
    )
    for line in (
        "checkpoint-create-as guest one", "checkpoint-create-as guest two", "checkpoint-list guest --tree",
        "checkpoint-list guest --name --roots", "checkpoint-parent guest two", "checkpoint-info guest one",
        f"backup-begin guest {tmp_path}/b.xml", "backup-dumpxml guest --xpath /domainbackup/disks/disk/@backupmode",
        "domjobabort guest", "checkpoint-delete guest one --children",
    ):  # fmt: skip
        code, out, err = virsh.run(line)
        assert (code, err) == (0, "")
        said += out.split()
    assert " ".join(said) == (
        "Domain checkpoint one created Domain checkpoint two created one | +- two one one "
        "Name: one Domain: guest Parent: - Children: 1 Descendants: 1 "
        'Backup started backupmode="full" Domain checkpoint one deleted'
    )
    machine.check()


def back_up(home: Path, ref: DomainRef) -> None:
    """Do it as another process does."""
    server = f"<server transport='unix' socket='{home}/nbd'/>"
    QemuDriver(Directories.under(home)).domain_backup_begin(
        ref,
        f"<domainbackup mode='pull'>{server}</domainbackup>",
        "<domaincheckpoint><name>new</name></domaincheckpoint>",
    )


def test_killed_at_any_step_a_backup_is_served_or_not_there(tmp_path: Path) -> None:
    step, served = 1, set()
    while step < MAX_STEPS:
        home = tmp_path / str(step)
        home.mkdir()
        with session(home) as connection:
            assert isinstance(connection.hypervisor, QemuDriver)
            machine = Machine(home, connection.hypervisor)
            machine.stand()
            killed = killed_at(step, STEPS, functools.partial(back_up, home, machine.ref))
            names = [item.name for item in machine.driver.domain_list_all_checkpoints(machine.ref)]
            is_served = machine.document() is not None
            if is_served:
                said = image.real_qemu_img("info", "--output=json", f"nbd+unix:///vda?socket={home}/nbd")
                assert json.loads(said)["virtual-size"] == SIZE
                assert names == ["new"]
                machine.driver.domain_abort_job(machine.ref)
            served.add(is_served)
            machine.check(*names)
            assert sorted(path.name for path in home.glob("vda*")) == ["vda.qcow2"]
        if not killed:
            break
        step += 1 + step // 6
    assert True in served
    assert False in served


def push_and_settle(home: Path, ref: DomainRef) -> None:
    """Write a backup of what changed to the end, as another process does."""
    driver = QemuDriver(Directories.under(home))
    driver.domain_backup_begin(ref, "<domainbackup><incremental>old</incremental></domainbackup>")
    with contextlib.suppress(VirtError):
        while driver.domain_backup_get_xml_desc(ref):
            time.sleep(0.02)


def test_killed_at_any_step_a_written_backup_is_whole_or_gone(tmp_path: Path) -> None:
    steps = (*STEPS, Path(blockjob.__file__))
    step, written = 1, set()
    while step < MAX_STEPS:
        home = tmp_path / str(step)
        home.mkdir()
        with session(home) as connection:
            assert isinstance(connection.hypervisor, QemuDriver)
            machine = Machine(home, connection.hypervisor)
            machine.stand()
            machine.checkpoint("old")
            machine.write()
            killed = killed_at(step, steps, functools.partial(push_and_settle, home, machine.ref))
            machine.settle()
            machine.check("old")
            found = [path for path in home.glob("vda*") if path.name != "vda.qcow2"]
            written.add(len(found))
            for path in found:
                image.assert_clean(path, "qcow2")
                assert allocated(path) > 0
        if not killed:
            break
        step += 1 + step // 6
    assert written == {0, 1}


SERVED = "<server transport='unix' socket='{home}/nbd'/>"


@pytest.mark.parametrize(
    ("head", "more", "mode"),
    [
        ("<incremental>one</incremental>", "", "incremental"),
        ("<incremental>one</incremental>", " backupmode='full'", "full"),
        ("", " backupmode='incremental' incremental='one'", "incremental"),
        ("", " incremental='one'", "incremental"),
        ("<incremental>one</incremental>", " backupmode='incremental' incremental='two'", "incremental"),
    ],
)
def test_each_disk_is_backed_up_as_it_says(tmp_path: Path, machine: Machine, head: str, more: str, mode: str) -> None:
    machine.boot(start=True)
    for name in ("one", "two"):
        machine.checkpoint(name)
    item = f"<disk name='vda' type='file' exportbitmap='mine'{more}><scratch file='{tmp_path}/scratch'/></disk>"
    xml = f"<domainbackup mode='pull'>{head}{SERVED.format(home=tmp_path)}<disks>{item}</disks></domainbackup>"
    machine.driver.domain_backup_begin(machine.ref, xml)
    document = machine.document() or ""
    assert f"backupmode='{mode}'" in document
    exports = machine.ask("query-block-exports")
    assert isinstance(exports, list) and len(exports) == 1
    said = subprocess.run(
        ["nbdinfo", "--json", f"nbd+unix:///vda?socket={tmp_path}/nbd"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    assert ("qemu:dirty-bitmap:mine" in said) == (mode == "incremental")
    machine.driver.domain_abort_job(machine.ref)
    machine.check("one", "two")
    stats = machine.driver.domain_get_job_stats(machine.ref, 1)
    assert stats[0] == JobType.COMPLETED and stats[1]["operation"] == 9
    assert 0 <= stats[1]["disk_temp_used"] < stats[1]["disk_temp_total"] == SIZE and "disk_total" not in stats[1]


def test_how_a_written_backup_went_is_told_later(tmp_path: Path, machine: Machine) -> None:
    machine.boot(start=True)
    machine.push(tmp_path / "whole")
    kind, told = machine.driver.domain_get_job_stats(machine.ref, 1)
    assert kind == JobType.COMPLETED
    assert (told["disk_total"], told["disk_processed"], told["success"]) == (SIZE, SIZE, 1)
    assert machine.driver.domain_get_job_stats(machine.ref, 1) == (JobType.NONE, {})
