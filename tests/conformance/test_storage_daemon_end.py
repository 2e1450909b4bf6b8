"""The end of a storage daemon, and of ``qemu-nbd``, one of whose disks hangs: a real nbdkit that is stopped."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hostel.block.jobs.state import JobStatus
from hostel.block.node import BlockNode
from hostel.cli.qemu import ending
from hostel.cli.storage_daemon import daemon as daemon_module
from hostel.cli.storage_daemon.daemon import Daemon
from hostel.cli.storage_daemon.monitor import job as job_commands
from hostel.cli.storage_daemon.monitor.session import Session
from hostel.errors import BlockError
from hostel.wire.nbd.protocol import Command
from support.daemon import OURS, Monitor, listens
from support.hanging import HangingDisk, hanging_disk
from support.image import real_qemu_img
from support.nbd import MIB, Peer

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("nbdkit", "qemu-img", "qemu-io")]

PART = 65536


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the daemon runs: two images of which one is to hang."""
    monkeypatch.chdir(tmp_path)
    for name in ("good.qcow2", "bad.qcow2"):
        real_qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=full", tmp_path / name, "4M")
    return tmp_path


@pytest.fixture
def bad(folder: Path) -> Iterator[HangingDisk]:
    with hanging_disk(folder / "bad.qcow2") as disk:
        yield disk


def nodes(bad: HangingDisk) -> list[str]:
    return [
        "--blockdev", "qcow2,node-name=good,file.driver=file,file.filename=good.qcow2",
        "--blockdev", bad.blockdev("below"),
        "--blockdev", "qcow2,node-name=bad,file=below",
    ]  # fmt: skip


def wait_until(condition: Callable[[], object], seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def holds(image: str, pattern: int) -> bool:
    """Whether the first part of an image is made of a byte, as qemu-io reads it from the file beside its users."""
    words = ["qemu-io", "-U", "-r", "-f", "qcow2", "-c", f"read -P {pattern} 0 {PART}", image]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return "Pattern verification failed" not in said.stdout


def write(peer: Peer, offset: int, pattern: int) -> None:
    """Have a server at work on a write."""
    peer.request(Command.WRITE, offset, PART, payload=bytes([pattern]) * PART)
    wait_until(lambda: not any(fcntl.ioctl(peer.socket, termios.TIOCOUTQ, bytes(4))))  # it has taken all of it


@pytest.mark.parametrize("ends_by_monitor", [False, True], ids=["signal", "quit"])
def test_a_disk_that_hangs_holds_up_no_other_and_a_second_signal_gives_it_up(
    folder: Path, bad: HangingDisk, ends_by_monitor: bool
) -> None:
    path = folder / "monitor.sock"
    words = [
        *nodes(bad), "--nbd-server", "addr.type=unix,addr.path=nbd.sock", "--pidfile", "pid",
        "--export", "nbd,id=g,node-name=good,writable=on", "--export", "nbd,id=b,node-name=bad,writable=on",
        "--chardev", f"socket,id=m,path={path},server=on,wait=off", "--monitor", "m",
    ]  # fmt: skip
    with subprocess.Popen([*OURS, *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            wait_until((folder / "pid").exists)
            with Peer("nbd.sock") as good, Peer("nbd.sock") as hung:
                good.use("good")
                hung.use("bad")
                write(good, 0, 7)
                assert good.simple() == (0, b"")
                bad.hang()
                write(hung, 0, 8)
                if ends_by_monitor:
                    monitor = Monitor(path)
                    monitor.command("qmp_capabilities")
                    monitor.command("quit")
                    monitor.close()
                else:
                    process.send_signal(signal.SIGTERM)
                    process.send_signal(signal.SIGHUP)  # as a terminal that goes
                began = time.monotonic()
                wait_until(lambda: holds("good.qcow2", 7))
                told = process.stderr.readline()
                assert told.startswith("qemu-storage-daemon: waiting for export 'b', the NBD server, ")
                process.send_signal(signal.SIGTERM)
                assert process.wait(40) == 1
                assert time.monotonic() - began < 40
            said = process.stderr.read()
        finally:
            process.kill()
    assert "qemu-storage-daemon: export 'b' did not end within" in said
    assert "qemu-storage-daemon: flushing node 'bad' did not end within" in said
    assert "'g'" not in said
    assert "'good'" not in said
    assert not [left for left in ("pid", "nbd.sock", "monitor.sock") if (folder / left).exists()]
    real_qemu_img("check", "-q", folder / "good.qcow2")


def test_an_image_whose_server_hangs_is_given_up_by_one_signal(folder: Path) -> None:
    words = [
        "--nbd-server", "addr.type=unix,addr.path=nbd.sock", "--pidfile", "pid",
        "--blockdev", "qcow2,node-name=good,file.driver=file,file.filename=good.qcow2",
        "--blockdev", "nbd,node-name=bad,server.type=unix,server.path=slow.sock",
    ]  # fmt: skip
    with socket.socket(socket.AF_UNIX) as slow:
        slow.bind("slow.sock")
        slow.listen()
        slow.settimeout(30)
        with subprocess.Popen([*OURS, *words], stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                with slow.accept()[0]:
                    process.send_signal(signal.SIGTERM)
                    began = time.monotonic()
                    assert process.wait(25) == 0
                    assert time.monotonic() - began < 15
                assert process.stderr.read() == ""
            finally:
                process.kill()
    assert not [left for left in ("pid", "nbd.sock") if (folder / left).exists()]
    real_qemu_img("check", "-q", folder / "good.qcow2")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon in this process ends within seconds."""
    monkeypatch.setattr(ending, "PATIENCE", 3.0)
    monkeypatch.setattr(ending, "_QUIET", 1.0)
    monkeypatch.setattr(daemon_module, "_CHANGE", 0.5)
    monkeypatch.setattr(job_commands, "_PROMPT", 0.5)


class InProcess:
    """A daemon here, told what to do as its monitor is."""

    def __init__(self, bad: HangingDisk, *, reconnect_delay: int = 0) -> None:
        self.daemon = Daemon(lambda _: None)
        self._session = Session(self.daemon)
        self.run("qmp_capabilities")
        self.run("blockdev-add", driver="qcow2", node_name="good", file=file("good.qcow2"))
        self.run("blockdev-add", node_name="below", reconnect_delay=reconnect_delay, **bad.options)
        self.run("blockdev-add", driver="qcow2", node_name="bad", file="below")

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Run a command; its answer."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        [answer] = self._session.receive(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        found: dict[str, Any] = json.loads(answer)
        return found

    def run(self, command: str, **arguments: object) -> None:
        """Run a command, which must succeed."""
        answer = self.ask(command, **arguments)
        assert "return" in answer, answer

    @property
    def is_busy(self) -> bool:
        """Whether a command runs."""
        if not self.daemon.lock.acquire(blocking=False):
            return True
        self.daemon.lock.release()
        return False


def file(name: str) -> dict[str, str]:
    return {"driver": "file", "filename": name}


def is_in_use(node: BlockNode) -> bool:
    """Whether a request is under way."""
    try:
        with node.hold_within(0):
            return False
    except BlockError:
        return True


def in_the_middle_of_nothing(running: InProcess, bad: HangingDisk) -> None:
    running.daemon.nodes["bad"].pwrite(0, b"\x08" * PART)  # which its own end writes the rest of
    bad.hang()


def in_a_job(running: InProcess, bad: HangingDisk) -> None:
    bad.hang()
    running.run("blockdev-mirror", job_id="j", device="good", target="bad", sync="full")
    wait_until(lambda: is_in_use(running.daemon.nodes["bad"]))


def in_the_end_of_a_job(running: InProcess, bad: HangingDisk) -> None:
    pend(running, "backup")
    bad.hang()
    running.run("job-finalize", id="j")


def pend(running: InProcess, kind: str) -> None:
    """Have a job that waits to be finalized, or cancelled."""
    running.run(f"blockdev-{kind}", job_id="j", device="good", target="bad", sync="full", auto_finalize=False)
    job = running.daemon.jobs["j"]
    if kind == "mirror":
        wait_until(lambda: job.status is JobStatus.READY)
        running.run("job-complete", id="j")
    wait_until(lambda: job.status is JobStatus.PENDING)


def in_a_command(running: InProcess, bad: HangingDisk) -> None:
    bad.hang()
    resize = {"node_name": "bad", "size": 8 * MIB}
    threading.Thread(target=running.ask, args=("block_resize",), kwargs=resize, daemon=True).start()
    wait_until(lambda: running.is_busy)


def in_the_removal_of_an_export(running: InProcess, bad: HangingDisk) -> None:
    requests_under_way(running, bad.hang)
    removed = {"id": "e", "mode": "hard"}
    threading.Thread(target=running.ask, args=("block-export-del",), kwargs=removed, daemon=True).start()
    wait_until(lambda: running.daemon.exports["e"].shutting_down)


def requests_under_way(running: InProcess, happens: Callable[[], None]) -> None:
    """A client uses the disk to which something happens."""
    running.run("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
    running.run("block-export-add", type="nbd", id="e", node_name="bad", writable=True)
    running.daemon.serve()
    with Peer("nbd.sock") as peer:
        peer.use("bad")
        happens()
        write(peer, 0, 8)
        wait_until(lambda: is_in_use(running.daemon.nodes["bad"]))


@pytest.mark.parametrize(
    ("hang", "left"),
    [
        (in_the_middle_of_nothing, ["node 'bad'", "flushing node 'bad'"]),
        (in_a_job, ["job 'j'", "node 'bad'"]),
        (in_the_end_of_a_job, ["job 'j'", "node 'bad'"]),
        (in_a_command, ["a monitor's command", "node 'bad'"]),
        (in_the_removal_of_an_export, ["a monitor's command", "flushing node 'bad'"]),
    ],
)
def test_what_does_not_end_is_named_after_one_time_for_all(
    bad: HangingDisk, impatient: None, hang: Callable[[InProcess, HangingDisk], None], left: Sequence[str]
) -> None:
    running = InProcess(bad)
    good = running.daemon.nodes["good"]
    good.pwrite(0, b"\x07" * PART)
    hang(running, bad)
    began = time.monotonic()
    with pytest.raises(BlockError) as caught:
        running.daemon.close()
    assert time.monotonic() - began < 40
    assert caught.value.errno == errno.ETIMEDOUT
    said = str(caught.value).split("\n")
    for what in left:
        assert [line for line in said if line.startswith(f"{what} did not end within ")], said
    assert not [line for line in said if "flushing node 'good'" in line or "internal error" in line], said
    # A job, or a command, may be about to put something else into it.
    assert good.closed == (hang is in_the_middle_of_nothing)
    assert holds("good.qcow2", 7)


def test_a_node_is_closed_only_when_the_job_in_it_has_ended(bad: HangingDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "_CHANGE", 0.3)
    monkeypatch.setattr(ending, "_TURN", 0.2)
    running = InProcess(bad)
    good, bad_one = running.daemon.nodes["good"], running.daemon.nodes["bad"]
    running.run("block-dirty-bitmap-add", node="good", name="b", persistent=True)
    good.pwrite(0, b"\x07" * PART)
    write = bad_one.driver.pwrite

    def slow(offset: int, data: memoryview) -> None:
        time.sleep(2)
        write(offset, data)

    monkeypatch.setattr(bad_one.driver, "pwrite", slow)
    running.run("blockdev-backup", job_id="j", device="good", target="bad", sync="incremental", bitmap="b")
    wait_until(lambda: is_in_use(bad_one))
    running.daemon.close()
    assert good.closed
    assert holds("good.qcow2", 7)
    [bitmap] = json.loads(real_qemu_img("info", "--output=json", "good.qcow2"))["format-specific"]["data"]["bitmaps"]
    assert bitmap["flags"] == ["auto"]


@pytest.mark.parametrize("kind", ["backup", "mirror"])
def test_the_end_of_a_job_whose_target_hangs_holds_up_no_command(bad: HangingDisk, impatient: None, kind: str) -> None:
    running = InProcess(bad)
    pend(running, kind)
    bad.hang()
    began = time.monotonic()
    for command in ("job-finalize", "job-cancel"):
        running.run(command, id="j")
        assert "is at its end already, and waits" in running.ask(command, id="j")["error"]["desc"]
    running.run("blockdev-add", driver="null-co", node_name="other", size=MIB)
    running.run("blockdev-del", node_name="other")
    assert "in use" in running.ask("blockdev-del", node_name="bad")["error"]["desc"]
    assert time.monotonic() - began < 20
    job = running.daemon.jobs["j"]
    assert job.status is JobStatus.PENDING
    bad.go_on()
    wait_until(lambda: job.is_over)
    assert job.error is None
    running.run("blockdev-add", driver="null-co", node_name="j")
    assert running.ask("job-finalize", id="j")["error"]["desc"] == "Job not found"
    running.daemon.close()


def test_a_job_at_its_end_waits_for_no_server_once_it_is_cancelled(bad: HangingDisk, impatient: None) -> None:
    running = InProcess(bad, reconnect_delay=1000)
    pend(running, "backup")
    job = running.daemon.jobs["j"]
    bad.die()
    running.run("job-finalize", id="j")
    assert job.status is JobStatus.PENDING
    running.ask("job-cancel", id="j")
    wait_until(lambda: job.is_over)
    assert job.error == "Input/output error"
    with contextlib.suppress(BlockError):  # its disk has gone
        running.daemon.close()


def test_what_is_used_by_something_that_hangs_is_flushed(bad: HangingDisk, impatient: None) -> None:
    running = InProcess(bad)
    running.run("blockdev-add", driver="quorum", node_name="both", vote_threshold=1, children=["good", "bad"])
    both = running.daemon.nodes["both"]
    both.pwrite(0, b"\x07" * PART)
    bad.hang()

    def write() -> None:
        with contextlib.suppress(OSError):  # the disk goes in the end
            both.pwrite(MIB, b"\x07" * PART)

    threading.Thread(target=write, daemon=True).start()
    wait_until(lambda: is_in_use(running.daemon.nodes["bad"]))
    with pytest.raises(BlockError, match=r"^node '(both|bad)' did not end within ") as caught:
        running.daemon.close()
    assert "flushing node 'good'" not in str(caught.value)
    assert holds("good.qcow2", 7)


def test_a_server_that_is_to_come_back_is_not_waited_for_any_longer(bad: HangingDisk, impatient: None) -> None:
    running = InProcess(bad, reconnect_delay=1000)
    requests_under_way(running, bad.die)
    began = time.monotonic()
    with pytest.raises(BlockError, match=r"^export 'e': the connection to .* was lost") as caught:
        running.daemon.close()
    assert time.monotonic() - began < 40
    assert "did not end" not in str(caught.value)


def test_qemu_nbd_ends_though_its_image_hangs(folder: Path, bad: HangingDisk) -> None:
    image = f"driver=qcow2,file.driver=nbd,file.server.type=unix,file.server.path={folder / 'bad.sock'}"
    words = [sys.executable, "-m", "hostel", "qemu-nbd", "--image-opts", "-k", str(folder / "nbd.sock"), image]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            wait_until(lambda: listens(folder / "nbd.sock"))
            with Peer("nbd.sock") as peer:
                peer.use()
                bad.hang()
                write(peer, 0, 8)
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                told = process.stderr.readline()
                assert told.startswith("qemu-nbd: waiting for a connection, the image, flushing the image; ")
                process.send_signal(signal.SIGTERM)
                assert process.wait(40) == 1
                assert time.monotonic() - began < 40
            said = process.stderr.read()
        finally:
            process.kill()
    assert "qemu-nbd: flushing the image did not end within" in said
    assert not (folder / "nbd.sock").exists()
