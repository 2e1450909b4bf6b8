"""Random walks through what is done to a machine: snapshots, block jobs, saving, backups; virsh asks the daemon for it.

A model knows what each disk has to hold, and each snapshot to give back. The guest has no system: what it would write,
QEMU's own ``qemu-io`` writes through its disks. The daemon or QEMU may be killed in the middle of a step; then the
machine is as it was before, or as it is after. What was flushed is there whoever was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from support import hosteld, image
from support.virsh import real_lines

BLOCKS: Final = 16
BLOCK: Final = 65536
SIZE: Final = BLOCKS * BLOCK
SECONDS: Final = 60.0
_DOMAIN: Final = (
    "<domain type='qemu'><name>w</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>"
    "<features><acpi/></features><devices><controller type='usb' model='none'/>{disks}"
    "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk></devices></domain>"
)
_DISK: Final = (
    "<disk type='file' device='disk'><driver name='qemu' type='{fmt}'/><source file='{path}'/>"
    "<target dev='{dev}' bus='virtio'/></disk>"
)
_BACKUP: Final = (
    "<domainbackup>{since}<disks><disk name='vda' type='file'><target file='{path}'/><driver type='qcow2'/></disk>"
    "<disk name='vdb' backup='no'/></disks></domainbackup>"
)
_CHECKPOINT: Final = (
    "<domaincheckpoint><name>{name}</name><disks><disk name='vda' checkpoint='bitmap'/><disk name='vdb' "
    "checkpoint='no'/></disks></domaincheckpoint>"
)
_JOB: Final = re.compile(r" type=(.*)\n bandwidth=\d+\n cur=(\d+)\n end=(\d+)")
_ON: Final = ("running", "paused")


class Walk:
    """One machine, its daemon, and what is known of its disks.

    Args:
        home: an empty directory.
        seed: which walk.
        deadly: how likely the daemon is killed in a step.
        lethal: how likely QEMU is.
    """

    def __init__(self, home: Path, seed: int, deadly: float, lethal: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.images = home / "images"
        self.steps: list[str] = []
        self._deadly, self._lethal = deadly, lethal
        self._leaks = False  # what QEMU leaves where it is killed
        self._daemon_home = home / "daemon"
        self._stack = contextlib.ExitStack()
        self._number = 0
        self._holds_disks = True  # not after the memory of a guest that is paused went into a snapshot
        self._left: set[str] = set()  # files that are the user's, whatever becomes of them
        for folder in (self.images, self._daemon_home):
            folder.mkdir()
        self.raw = self.random.random() < 0.3
        formats = {"vda": "qcow2", "vdb": "raw" if self.raw else "qcow2"}
        self.now = {dev: [0] * BLOCKS for dev in formats}
        self.kept: dict[str, dict[str, list[int]]] = {}
        self._marked: dict[str, list[int]] = {}  # what vda was at each checkpoint
        self._backups: dict[str, Path] = {}  # what vda was at some of them is in these
        for dev, fmt in formats.items():
            image.qemu_img("create", "-q", "-f", fmt, self.images / dev, SIZE)
        disks = "".join(_DISK.format(fmt=fmt, path=self.images / dev, dev=dev) for dev, fmt in formats.items())
        self._document = home / "document.xml"
        self._document.write_text(_DOMAIN.format(disks=disks))

    def __enter__(self) -> Walk:
        self._start()
        self._must(f"define {self._document}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._daemon = self._stack.enter_context(hosteld.process(directory=self._daemon_home))
        self._uri = self._daemon.uri("qemu:///session")

    def step(self) -> None:
        """Do something, and see that all is as it has to be."""
        if self.random.random() < 0.4:
            self._write()
            self._check()
            return
        line = self._choose()
        self._note(line)
        words = line.split()
        before = {name: dict(disks) for name, disks in self.kept.items()}
        code, was_killed = self._do(line)
        self._note(f"  {code}{', killed' if was_killed else ''}")
        self._wait_for_jobs()
        names = set(self._must("snapshot-list w --name").split())
        also: list[dict[str, list[int]]] = []
        if words[0] == "snapshot-create-as":
            assert was_killed or (words[2] in names) == (code == 0), f"{words[2]} in {names}"
            if words[2] in names:
                left_out = [dev for dev in self.now if f"{dev},snapshot=no" in line]
                self.kept[words[2]] = {dev: list(data) for dev, data in self.now.items() if dev not in left_out}
        elif words[0] == "snapshot-delete":
            assert was_killed or code or "--children-only" in line or words[2] not in names
            self.kept = {name: disks for name, disks in self.kept.items() if name in names}
        elif words[0] == "snapshot-revert":
            then = self.now | {dev: list(data) for dev, data in before[words[2]].items()}
            if was_killed:
                also = [then]
            elif code == 0:
                self.now = then
        elif words[0] == "checkpoint-create-as":
            self._marked[words[2]] = list(self.now["vda"])
        elif words[0] == "backup-begin":
            self._end_backup(Path(words[2]), *words[3:], is_sure=code == 0 and not was_killed)
        assert names == set(self.kept), f"{names} are there, and not {set(self.kept)}"
        self._check(*also)

    def _note(self, what: str) -> None:
        self.steps.append(what.replace(f"{self.images}/", ""))

    # -- what is done -------------------------------------------------------------------------------------------------

    def _choose(self) -> str:
        """A line for virsh that has a chance."""
        pick = self.random.choice
        self._number += 1
        new = f"s{self._number}"
        apart = pick(["", "", "", "--diskspec vda,snapshot=no", "--diskspec vdb,snapshot=no"])
        found = [(f"snapshot-create-as w {new} --disk-only {apart}", 5.0), (f"snapshot-create-as w {new}", 3.0)]
        if self.kept:
            old = pick(list(self.kept))
            found += [
                (f"snapshot-revert w {old} {pick(['', '', '--running', '--paused', '--force'])}", 4.0),
                (f"snapshot-delete w {old} {pick(['', '', '--children', '--children-only'])}", 4.0),
            ]
        if self._state() not in _ON:
            found += [("start w --paused", 5.0), ("start w", 3.0)]
        else:
            found += self._choices_while_it_runs(new, apart)
        lines, weights = zip(*found, strict=True)
        return str(self.random.choices(lines, weights)[0])

    def _choices_while_it_runs(self, new: str, apart: str) -> list[tuple[str, float]]:
        pick = self.random.choice
        dev = pick(["vda", "vda", "vdb"])
        number = f"{dev}[{self.random.randrange(2, 8)}]"
        copy, memory, backup = (self.images / f"{new}.{word}" for word in ("copy", "memory", "backup"))
        found = [
            ("destroy w", 1.0), ("suspend w", 0.5), ("resume w", 0.7), ("reset w", 0.3), ("managedsave w", 0.8),
            (f"snapshot-create-as w {new} --memspec {memory},snapshot=external {apart} {pick(['', '--live'])}", 2.0),
            (f"blockcommit w {dev} --active {pick(['', '--shallow'])} {pick(['--pivot', '--keep-overlay', ''])}", 3.0),
            (f"blockcommit w {dev} --shallow --top {number} --wait {pick(['', '--delete'])}", 1.5),
            (f"blockpull w {dev} --wait {pick(['', f'--base {number}'])}", 1.5),
            (f"blockcopy w {dev} {copy} --transient-job {pick(['', '--shallow'])} {pick(['--pivot', '--finish', ''])}",
             2.0),
            (f"checkpoint-create-as w {new} {'--diskspec vda' if self.raw else ''}", 1.5),
            (f"backup-begin w {backup} - {pick(['-', new])}", 1.5),
        ]  # fmt: skip
        for old in self._must("checkpoint-list w --name").split():
            found += [(f"checkpoint-delete w {old}", 0.7), (f"backup-begin w {backup} {old} {pick(['-', new])}", 1.5)]
        for busy in self._jobs():
            found += [(f"blockjob w {busy} --pivot", 4.0), (f"blockjob w {busy} --abort", 3.0)]
        return found

    def _do(self, line: str) -> tuple[int, bool]:
        """Have it done; the exit code, and whether somebody was killed meanwhile."""
        words = line.split()
        if words[0] == "backup-begin":
            words = self._backup(*words[2:])
        if words[0] == "blockcopy":
            self._left |= {Path(words[3]).name, *(path.name for path in self._tops().values())}
        if words[0] == "blockpull" or (words[0] == "blockcommit" and "--delete" not in words):
            self._left |= self._chain(self._tops()[words[2]])
        if words[0] == "snapshot-create-as":
            self._holds_disks = self._holds_disks and "--disk-only" in words
        if words[0] in ("destroy", "start", "resume"):
            self._holds_disks = True
        asked = subprocess.Popen(
            ["virsh", "-q", "-c", self._uri, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        is_deadly, is_lethal = self.random.random() < self._deadly, self.random.random() < self._lethal
        if is_deadly:
            time.sleep(0.03 + self.random.random() ** 2 * 0.8)
            self._daemon.process.kill()
            self._daemon.process.wait()
        if is_lethal:
            time.sleep(0.03 + self.random.random() ** 2 * 0.8)
            self._end_machine()
            self._leaks = self._holds_disks = True
        said, _ = asked.communicate(timeout=SECONDS)
        if asked.returncode and not is_deadly:
            self._note(f"  {said.strip()}")
        if is_deadly:
            self._stack.close()
            self._start()
        return asked.returncode, is_deadly or is_lethal

    def _backup(self, path: str, since: str, checkpoint: str) -> list[str]:
        """What begins a backup of vda, since a checkpoint or whole, and with it a new checkpoint, or none."""
        documents = [self.images.with_name("backup.xml")]
        text = f"<incremental>{since}</incremental>" if since != "-" else ""
        documents[0].write_text(_BACKUP.format(since=text, path=path))
        if checkpoint != "-":
            documents.append(self.images.with_name("checkpoint.xml"))
            documents[1].write_text(_CHECKPOINT.format(name=checkpoint))
            self._marked[checkpoint] = list(self.now["vda"])
        self._left.add(Path(path).name)
        return ["backup-begin", "w", *map(str, documents)]

    def _write(self) -> None:
        """Let a disk hold something else, through its guest where it runs."""
        dev, index, byte = self.random.choice(["vda", "vdb"]), self.random.randrange(BLOCKS), self.random.randrange(256)
        piece = f"write -P {byte} {index * BLOCK} {BLOCK}"
        if self._state() in _ON:
            if not self._holds_disks:
                return
            for word in (piece, "flush"):
                device = f"/machine/peripheral/virtio-disk{int(dev == 'vdb')}/virtio-backend"
                self._must(f"qemu-monitor-command w --hmp 'qemu-io -d {device} \"{word}\"'")
        elif self._must("list --all --with-managed-save --name").split():
            return  # its memory knows the disks as they are
        else:
            image.write(self._tops()[dev], self._format(self._tops()[dev]), (index * BLOCK, bytes([byte]) * BLOCK))
        self._note(f"write {byte} to {dev} at {index}")
        self.now[dev][index] = byte

    def _end_backup(self, path: Path, since: str, checkpoint: str, *, is_sure: bool) -> None:
        """See that a backup holds the disk, or one since a checkpoint what is not as it was then.

        The backup of that checkpoint, with this one on it, gives back the disk.
        """
        deadline = time.monotonic() + SECONDS
        while "Backup" in self._ask("domjobinfo w")[0]:
            assert time.monotonic() < deadline, "the backup does not end"
            time.sleep(0.05)
        if not is_sure:
            return
        held, now = self._content(path), self.now["vda"]
        before = self._marked.get(since, [-1] * BLOCKS)
        right = [mine == it or (mine == 0 and it == old) for mine, it, old in zip(held, now, before, strict=True)]
        assert all(right), f"the backup holds {held} of {now}, {before} before"
        if since in self._backups and held != now:
            image.real_qemu_img("rebase", "-u", "-f", "qcow2", "-b", self._backups[since], "-F", "qcow2", path)
            held = self._content(path)
            assert held == now, f"restored from the backup of {since} and this one vda is {held}, not {now}"
        if held == now:
            self._backups[checkpoint] = path

    # -- how it is ----------------------------------------------------------------------------------------------------

    def _ask(self, line: str) -> tuple[str, str]:
        """What virsh prints and complains of."""
        return real_lines(self._uri, [line])[0]

    def _must(self, line: str) -> str:
        said, complaint = self._ask(line)
        assert not complaint, f"{line}: {complaint}"
        return said

    def _state(self) -> str:
        return self._must("domstate w").strip()

    def _tops(self) -> dict[str, Path]:
        """Where the disks are, by target."""
        rows = (line.split() for line in self._must("domblklist w").splitlines())
        return {row[0]: Path(row[1]) for row in rows if len(row) == 2 and row[1] != "-"}

    def _format(self, path: Path) -> str:
        """The format of an image, none of which holds what looks like another one."""
        return str(json.loads(image.real_qemu_img("info", "-U", "--output=json", path))["format"])

    def _wait_for_jobs(self) -> None:
        """Wait until what runs has ended, or waits for a word."""
        deadline = time.monotonic() + SECONDS
        while any(done < end for _, done, end in self._jobs().values()):
            assert time.monotonic() < deadline, "a job does not end"
            time.sleep(0.05)

    def _jobs(self) -> dict[str, tuple[str, int, int]]:
        """What job each disk has, how much of it is done, and how much there is to do; disks without one have none."""
        lines = {dev: f"blockjob w {dev} --raw" for dev in self.now}
        said = zip(lines, real_lines(self._uri, list(lines.values())), strict=True)
        found = {dev: _JOB.search(text) for dev, (text, _) in said}
        return {dev: (job[1], int(job[2]), int(job[3])) for dev, job in found.items() if job is not None}

    def _content(self, path: Path) -> list[int]:
        """The byte that each block holds; -1 where it is of several."""
        plain = path.parent.with_name("plain")
        image.real_qemu_img("convert", "-U", "-f", self._format(path), "-O", "raw", path, plain)
        data = plain.read_bytes()
        pieces = [data[start : start + BLOCK] for start in range(0, SIZE, BLOCK)]
        return [piece[0] if piece == piece[:1] * BLOCK else -1 for piece in pieces]

    def _check(self, *also: dict[str, list[int]]) -> None:
        """See that disks hold what they must, and that nothing is there that nobody knows of.

        Args:
            also: what the disks may hold as well.
        """
        tops = self._tops()
        assert set(tops) == set(self.now)
        committed = {dev for dev, (kind, _, _) in self._jobs().items() if "Commit" in kind}
        for dev in tops.keys() - committed:  # QEMU lets nobody read below a commit
            held = self._content(tops[dev])
            assert held in (self.now[dev], *(other[dev] for other in also)), f"{dev} holds {held}, not {self.now[dev]}"
            self.now[dev] = held
        if self._state() not in _ON:
            assert not self.processes(), "QEMU is left"
            for path in tops.values():
                if self._format(path) == "qcow2":
                    if self._leaks:
                        image.qemu_img("check", "-q", "-r", "leaks", "-f", "qcow2", path)
                    image.assert_clean(path, "qcow2")
        documents = [self._must("dumpxml w"), *(self._must(f"snapshot-dumpxml w {name}") for name in self.kept)]
        named = {Path(path) for text in documents for path in re.findall(r"file='([^']*)'", text)}
        known = {name for path in {*named, *tops.values()} if path.exists() for name in self._chain(path)}
        left = {path.name for path in self.images.iterdir()} - known - self._left
        assert not left, f"left behind: {left}"
        log = self._daemon.log.read_text()
        assert "internal error" not in log and "Traceback" not in log, log

    def _chain(self, path: Path) -> set[str]:
        """The files that an image is made of."""
        words = ("info", "-U", "--backing-chain", "--output=json", path)
        return {Path(item["filename"]).name for item in json.loads(image.real_qemu_img(*words))}

    def processes(self) -> list[int]:
        """The QEMUs of this walk that run."""
        words = ["pgrep", "-f", f"^[^ ]*qemu-system.*{self._daemon_home}"]
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        return [int(pid) for pid in said.split()]

    def destroy(self) -> None:
        """Let nothing run any more; what the daemon cannot end is killed."""
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):
            self._ask("destroy w")
        deadline = time.monotonic() + 5
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._end_machine()

    def _end_machine(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
