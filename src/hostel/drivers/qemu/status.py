"""The state document of a running machine, and the note of how the last run ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.codec.xml import STRING, YES_NO, Element, attr, child, children, choice, integer, texts
from hostel.drivers.base import ShutoffReason
from hostel.drivers.qemu.tuning.numad import Advice
from hostel.drivers.store import Store
from hostel.errors import ModelError
from hostel.model.backup import Backup
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain

_I64 = 2**63 - 1
MERGING: Final = "merging"  # the ending of one that runs only for that, and whose guest does not
FAILED: Final = "failed"  # the ending of one that was coming, and is not let in
DUMPED: Final = "whole"  # in the place of a dump's path, which begins with a slash
_LISTS = ("jobs", "plugs", "deprecations", "overlays", "written", "ejected", "locks")


class BlockJob(Element, tag="blockjob"):
    """A block job, from before it is started until all that follows from it is written down.

    Attributes:
        name: its id in QEMU.
        kind: ``pull``, ``copy``, ``commit``, ``active-commit`` or ``backup``.
        disk: the target that the disk has in the document.
        top: the number of the image whose data moves; 0 where that is the disk's own top.
        base: the number of the image that it moves to, or down to which it is pulled; 0 where there is none. Of a
            backup: that of its target.
        intent: what it is asked to end by: ``pivot``, ``abort``, or nothing.
        ended: how it ended: ``completed``, ``failed``, ``canceled``; empty while it runs.
        error: QEMU's reason for a failure.
        announced: whether it was told that it is ready.
        delete: whether the images that are merged away are removed.
        reuse: whether the target was there before, and stays when the job fails.
        old: where the disk's top was when the job began.
        pool: of which pool that was a volume; empty where it was none.
        volume: which volume.
        stale: files to remove in the end.
    """

    name: str = attr()
    kind: str = attr(choice("pull", "copy", "commit", "active-commit", "backup"))
    disk: str = attr()
    top: int = attr(integer(), default=0)
    base: int = attr(integer(), default=0)
    intent: str = attr(default="")
    ended: str = attr(default="")
    error: str = attr(default="")
    announced: bool = attr(YES_NO, default=False)
    delete: bool = attr(YES_NO, default=False)
    reuse: bool = attr(YES_NO, default=False)
    old: str = attr(default="")
    pool: str = attr(default="")
    volume: str = attr(default="")
    stale: list[str] = texts(STRING, factory=list)


class Plug(Element, tag="plug"):
    """A device on its way into the machine or out of it, or a disk whose image is being exchanged.

    Attributes:
        way: ``in``, ``out``, ``medium`` or ``overlay``.
        alias: the device's.
        made: whether the new image is ours to remove.
        disk: the disk as it will be.
    """

    way: str = attr(choice("in", "out", "medium", "overlay"))
    alias: str = attr()
    made: bool = attr(YES_NO, default=False)
    disk: Disk | None = child(Disk, default=None)


class Lock(Element, tag="lock"):
    """A lock that a lock manager has for the machine, from before it is asked for it until it has let go of it.

    Attributes:
        space: the lockspace that it is in; empty for where files are locked themselves.
        name: what it is called there.
        path: the file of a lease; empty where the lockspace says.
        offset: where in that file, in bytes.
        shared: whether others may have it, too.
        sure: whether the lock manager has said that it has it.
    """

    space: str = attr(default="")
    name: str = attr()
    path: str = attr(default="")
    offset: int = attr(integer(maximum=2**64 - 1), default=0)
    shared: bool = attr(YES_NO, default=False)
    sure: bool = attr(YES_NO, default=False)


class Place(Element, tag="hostel"):
    """Where a daemon of our own on this host keeps everything; ``boot`` tells whether it is this host."""

    config: str = attr()
    state: str = attr()
    cache: str = attr()
    data: str = attr()
    boot: str = attr()


class Migration(Element, tag="migration"):
    """A migration, from before its first effect until nothing of it is left to be decided.

    Attributes:
        way: ``out`` at the source, ``in`` at the destination.
        phase: the step that is under way or done: ``begin``, ``perform``, ``performed``, ``confirm`` at the source,
            ``prepare``, ``finish`` at the destination.
        flags: ``virDomainMigrateFlags``.
        resumes: whether the CPUs ran before, and do again where it fails.
        peer: the URI by which the source reaches the destination's daemon, where the source leads.
        place: where the destination keeps its state, where that is on this host.
        name: what the domain is called at the destination.
        copied: the targets of the disks that are copied.
        abort: whether it is asked to end.
        began: when, in milliseconds since 1970.
        asked: when the destination was last asked in vain, in seconds since 1970.
        made: files that were made for it.
        definition: what the destination's definition was before; empty where there was none, None where it stays.
    """

    way: str = attr(choice("out", "in"))
    phase: str = attr(choice("begin", "perform", "performed", "confirm", "prepare", "finish"))
    flags: int = attr(integer(), default=0)
    resumes: bool = attr(YES_NO, default=False)
    peer: str = attr(default="")
    name: str = attr(default="")
    copied: str = attr(default="")
    abort: bool = attr(YES_NO, default=False)
    began: int = attr(integer(maximum=_I64), default=0)
    asked: int = attr(integer(maximum=_I64), default=0)
    made: list[str] = texts(STRING, factory=list)
    definition: str | None = attr(default=None)
    place: Place | None = child(Place, default=None)


class Pending(Element, tag="incoming"):
    """A domain that is expected and of which nothing runs yet; of one that does not run there is nothing else."""

    migration: Migration = child(Migration)
    domain: Domain = child(Domain)


class StatusDocument(Element, tag="domstatus"):
    """:class:`Status` on disk."""

    id: int = attr(integer())
    pid: int = attr(integer())
    started: int = attr(integer(maximum=_I64))
    run: str = attr()
    log_start: int = attr(integer(maximum=_I64))
    paused: int = attr(integer())
    running: int = attr(integer())
    ending: str = attr()
    resumes: bool = attr(YES_NO, default=False)
    dump: str = attr(default="")
    nodes: int = attr(integer(), default=0)
    backup_began: int = attr(integer(maximum=_I64), default=0)
    backup_done: int = attr(integer(maximum=_I64), default=0)
    backup_total: int = attr(integer(maximum=_I64), default=0)
    backup_error: str = attr(default="")
    speed: int = attr(integer(maximum=_I64), default=0)
    taints: str = attr(default="")
    group: str = attr(default="")
    lock_manager: str = attr(default="")
    lock_state: str = attr(default="")
    stdio: str = attr(default="file")
    denies_devices: bool = attr(YES_NO, default=False)
    cpuset: str = attr(default="")
    nodeset: str = attr(default="")
    deprecations: list[str] = texts(STRING, tag="deprecation", factory=list)
    overlays: list[str] = texts(STRING, tag="overlay", factory=list)
    written: list[str] = texts(STRING, tag="written", factory=list)
    ejected: list[str] = texts(STRING, tag="ejected", factory=list)
    locks: list[Lock] = children(Lock, factory=list)
    jobs: list[BlockJob] = children(BlockJob, factory=list)
    plugs: list[Plug] = children(Plug, factory=list)
    backup: Backup | None = child(Backup, default=None)
    migration: Migration | None = child(Migration, default=None)
    domain: Domain = child(Domain)


class Status(NamedTuple):
    """A machine that runs, or was being started when its starter died (``pid`` 0).

    Attributes:
        domain: the live document.
        id: its number while it runs.
        pid: QEMU's process id.
        started: QEMU's start time, in clock ticks since boot.
        run: the directory of its sockets and of its supervisor.
        log_start: the log's length before this run, in bytes.
        paused: libvirt's reason while it is paused on request, else 0.
        running: libvirt's reason while it runs.
        ending: why it is being ended by us, else empty.
        resumes: whether its CPUs run again when that fails.
        dump: the file that memory is being dumped to; :data:`DUMPED` once it is whole; else empty.
        nodes: the last number that was given to an image.
        jobs: block jobs that run, or whose end has not been dealt with.
        plugs: devices on their way in or out.
        backup: the backup that is under way.
        backup_began: when it began, in milliseconds since 1970; 0 where it turned out that it did not.
        backup_done: bytes that those of its jobs have copied which are over.
        backup_total: bytes that those were to copy.
        backup_error: why one of them failed.
        migration: the migration that is under way.
        speed: how much a migration may send, in MiB a second; 0 is as much as goes.
        taints: why it is beyond what is supported, each a ``Taint``, with blanks between.
        deprecations: what of it will be given up.
        overlays: files of transient disks, which go with the machine.
        written: how far images were written when they were made in this run, each as ``NUMBER=BYTES``.
        ejected: which numbers drives have that had a medium in this run and have none, each as ``ALIAS=NUMBER``.
        group: the path of its control group; empty where it has none.
        lock_manager: who keeps its locks, as it was when it was started; empty for nobody.
        lock_state: what the lock manager said of them when it let go of them, for whoever takes them next.
        locks: those that it has, or may have.
        stdio: what bounds what it writes into files, as it was when it was started.
        denies_devices: whether its control group keeps it from devices that its state does not name.
        cpuset: the processors of the host that numad advised; empty where it was not asked.
        nodeset: the nodes that it advised.
    """

    domain: Domain
    id: int
    pid: int
    started: int
    run: str
    log_start: int
    paused: int = 0
    running: int = 1
    ending: str = ""
    resumes: bool = False
    dump: str = ""
    nodes: int = 0
    jobs: tuple[BlockJob, ...] = ()
    plugs: tuple[Plug, ...] = ()
    backup: Backup | None = None
    backup_began: int = 0
    backup_done: int = 0
    backup_total: int = 0
    backup_error: str = ""
    migration: Migration | None = None
    speed: int = 0
    taints: str = ""
    deprecations: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    ejected: tuple[str, ...] = ()
    group: str = ""
    lock_manager: str = ""
    lock_state: str = ""
    locks: tuple[Lock, ...] = ()
    stdio: str = "file"
    denies_devices: bool = False
    cpuset: str = ""
    nodeset: str = ""

    def written_to(self, number: int) -> int:
        """How many bytes of an image's file were written when it was made; 0 where it was not in this run."""
        return next((int(size) for key, _, size in map(_pair, self.written) if key == str(number)), 0)

    def ejected_number(self, alias: str) -> int | None:
        """The number that an ejected drive has in libvirt's documents; None where it has none."""
        return next((int(number) for key, _, number in map(_pair, self.ejected) if key == alias), None)

    @property
    def advice(self) -> Advice:
        """What numad advised when the machine was started."""
        return Advice(self.cpuset, self.nodeset)

    @property
    def destruction(self) -> Path:
        """The directory that is there when somebody destroys it who does not have its lock (``destroying.py``)."""
        return Path(self.run) / f"destroyed.{self.pid}.{self.started}"  # another run has the same directory

    def format(self) -> str:
        """The document's text."""
        lists: dict[str, list[Any]] = {name: [*getattr(self, name)] for name in _LISTS}
        return StatusDocument(**{**self._asdict(), **lists}).format()

    @classmethod
    def parse(cls, text: str) -> Status:
        """Read a document that :meth:`format` wrote.

        Raises:
            ValueError: it is not one.
        """
        try:
            document = StatusDocument.parse(text)
        except ModelError as error:
            raise ValueError(str(error)) from error
        values = {name: getattr(document, name) for name in cls._fields}
        return cls(**{**values, **{name: tuple(values[name]) for name in _LISTS}})


def _pair(text: str) -> tuple[str, str, str]:
    return text.rpartition("=")


class Ending(NamedTuple):
    """How the last run of a domain ended."""

    reason: ShutoffReason
    detail: str


def write_ending(store: Store, name: str, ending: Ending) -> None:
    """Remember how a run ended."""
    store.write(name, json.dumps({"reason": int(ending.reason), "detail": ending.detail}))


def read_ending(store: Store, name: str) -> Ending:
    """How the last run ended; ``UNKNOWN`` when nobody knows."""
    text = store.read(name)
    try:
        fields = json.loads(text or "{}")
        return Ending(ShutoffReason(int(fields["reason"])), str(fields["detail"]))
    except (ValueError, KeyError, TypeError):
        return Ending(ShutoffReason.UNKNOWN, "")
