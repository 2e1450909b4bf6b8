"""Commands that start block jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync, BitmapMode, check_backup, require_named
from hostel.block.jobs.bitmaps import RecordingBitmap, named_bitmap
from hostel.block.jobs.commit import CommitJob
from hostel.block.jobs.event import JobEvent
from hostel.block.jobs.job import Job, JobSettings
from hostel.block.jobs.mirror import (
    ActiveCommitJob,
    CopyMode,
    MirrorJob,
    MirrorSettings,
    Replaced,
    Sync,
    check_distinct,
    check_granularity,
    check_replaced,
    check_settings,
)
from hostel.block.jobs.needs import Need, of_active_commit, of_backup, of_commit, of_mirror, of_stream
from hostel.block.jobs.policy import OnError
from hostel.block.jobs.stream import StreamJob
from hostel.block.jobs.transaction import JobTransaction
from hostel.block.node import BlockNode, new_name
from hostel.block.nodes import NodeTable
from hostel.block.options import OptionError
from hostel.block.rewiring import bottom_of_filters
from hostel.block.uses import Layer, Use
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, generic, needed
from hostel.errors import BlockError, QmpError

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_POLICIES: Final = tuple(policy.value for policy in OnError)
_MADE_AS_NODES: Final = ("copy-before-write", "copy-on-read")  # of which QEMU says so where that fails
_ENDS: Final = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")  # told when the job has left the graph
_OVER: Final = ("concluded", "null")


def node_of(daemon: Daemon, name: str, *, by_class: bool = False) -> BlockNode:
    """The node that a command names.

    Args:
        daemon: whose nodes.
        name: the node's.
        by_class: say by the error's class that there is none.

    Raises:
        BlockError: there is none.
        QmpError: likewise, with its class.
    """
    found = daemon.nodes.get(name)
    if found is None and by_class:
        # libvirt tells by the class whether the command is there.
        raise QmpError("DeviceNotFound", f"Device '{name}' not found")
    return daemon.nodes.find(name, name) if found is None else found


class Needs(NamedTuple):
    """What a job has until it is over.

    Attributes:
        filter: what QEMU calls the job's filter.
        filtered: the node that the filter is in.
        uses: what it does with which nodes, by the names of the job and of its filter.
        owned: a node to be closed when the job is over.
        transaction: the job's group; None for one of its own.
    """

    filter: str
    filtered: BlockNode
    uses: Callable[[str, str], Sequence[Need]]
    owned: BlockNode | None = None
    transaction: JobTransaction | None = None


class _Hold:
    """A job's uses of nodes, and the name of its filter.

    Raises:
        BlockError: the name is taken; nothing is held then.
    """

    def __init__(self, nodes: NodeTable, needs: Needs, job: str, name: str | None) -> None:
        self._nodes, self._name = nodes, name
        self._wanted = (needs, job, new_name() if name is None else name)
        self._needs: list[Need] = []
        if name is not None:
            try:
                nodes.name_filter(name, needs.filter, needs.filtered)
            except OptionError as error:
                if needs.filter in _MADE_AS_NODES:
                    error.message = f"Could not create node: {error.message}"
                raise

    def take(self) -> None:
        """Use the nodes.

        Raises:
            BlockError: others forbid it.
        """
        needs, job, name = self._wanted
        for need in needs.uses(job, name):
            try:
                self._nodes.hold(need.node, need.use, reopened=need.reopened)
            except BlockError as error:
                if needs.filter in _MADE_AS_NODES:
                    error.message = _step(need.use) + error.message
                raise
            self._needs.append(need)

    def replace(self, node: BlockNode, former: BlockNode) -> None:
        """A node has become the one that it was copied to."""
        for need in self._needs:
            if need.until_replaced:
                self._nodes.release(need.node, need.use)
        self._nodes.rebind(node, former)

    def release(self) -> None:
        """End them; any thread may."""
        if self._name is not None:
            self._nodes.forget_filter(self._name)
        for need in self._needs:
            self._nodes.release(need.node, need.use)


def _step(use: Use | Layer) -> str:
    """What QEMU says was to be done where a use of a filter that is made as a node is refused."""
    if isinstance(use, Layer):
        return "Could not replace node: "
    return "" if use.is_job or use.edge == "root" else "Could not create node: "


def _settings(daemon: Daemon, given: Mapping[str, Any], needs: Needs, hold: _Hold) -> JobSettings:
    both = OnError(given.get("on-error", OnError.REPORT.value))
    held = [hold]
    ending: list[JobEvent] = []
    last = "null" if given.get("auto-dismiss", True) else "concluded"

    def listen(event: JobEvent) -> None:
        if held and (event.name in _ENDS or event.data.get("status") in _OVER):
            held.pop().release()
            _close(daemon, needs.owned)
            daemon.nodes.forget_closed()
        if event.name in _ENDS:
            ending.append(event)
        elif ending:
            # Who hears of the end may begin another job at once: what is told of that comes after all of this.
            ending.append(event)
            if event.data.get("status") == last:
                told = [(each.name, each.data) for each in ending]
                ending.clear()  # whoever hears of it may dismiss the job at once, which is told by itself
                daemon.emit(*told)
        else:
            daemon.emit((event.name, event.data))

    return JobSettings(
        given.get("job-id", ""),
        speed=given.get("speed", 0),
        auto_finalize=given.get("auto-finalize", True),
        auto_dismiss=given.get("auto-dismiss", True),
        on_source_error=OnError(given.get("on-source-error", both.value)),
        on_target_error=OnError(given.get("on-target-error", both.value)),
        transaction=needs.transaction,
        listener=listen,
    )


def _close(daemon: Daemon, node: BlockNode | None) -> None:
    if node is None:
        return
    try:
        node.close()
    except OSError as error:
        daemon.report(f"'{node.filename}' could not be closed: {error}")


def make_job(
    daemon: Daemon, given: Mapping[str, Any], needs: Needs, make: Callable[[JobSettings, Replaced], Job]
) -> Job:
    """Make a job; where that fails nothing is held, and what would have been owned is open still.

    Args:
        daemon: whose it is.
        given: the checked arguments.
        needs: what the job has until it is over.
        make: makes it from its settings, and what to do when a node has become another one.

    Raises:
        BlockError: it cannot be made.
    """
    identifier = given.get("job-id", "")
    daemon.jobs.require_free(identifier)
    hold = _Hold(daemon.nodes, needs, identifier, given.get("filter-node-name"))

    def made() -> Job:
        job = make(_settings(daemon, given, needs, hold), hold.replace)
        try:
            hold.take()
        except BaseException:
            job.discard()
            raise
        return job

    try:
        return daemon.jobs.add(made, identifier)
    except BaseException:
        hold.release()
        raise


def _stream(daemon: Daemon, given: Mapping[str, Any]) -> None:
    for one, other in (("base", "base-node"), ("base", "bottom"), ("bottom", "base-node")):
        if one in given and other in given:
            raise generic(f"'{one}' and '{other}' cannot be specified at the same time")
    node = node_of(daemon, given["device"])
    base = _stream_base(daemon, node, given)
    job = make_job(
        daemon,
        given,
        Needs("copy-on-read", node, lambda job, name: of_stream(job, name, node, base)),
        lambda settings, _: StreamJob(settings, node, base=base, backing_file=given.get("backing-file")),
    )
    job.launch()


def _stream_base(daemon: Daemon, node: BlockNode, given: Mapping[str, Any]) -> BlockNode | None:
    chain = list(bottom_of_filters(node).chain())
    if "base" in given:
        found = _in_chain(chain[1:], given["base"])
        if found is None:
            raise generic(f"Can't find '{given['base']}' in the backing chain")
        return found
    if "base-node" in given:
        base = daemon.nodes.find(given["base-node"])
        if _of_chain(chain[1:], base) is not base:
            raise generic(f"Node '{base.name}' is not a backing image of '{given['device']}'")
        return base
    if "bottom" in given:
        bottom = daemon.nodes.find(given["bottom"])
        if _of_chain(chain, bottom) is None:
            raise generic(f"Node '{bottom.name}' is not in a chain starting from '{given['device']}'")
        return bottom.backing
    return None


def _of_chain(layers: list[BlockNode], node: BlockNode) -> BlockNode | None:
    """The layer that a node is, or shows: bitmaps and jobs may have put filters into either."""
    image = bottom_of_filters(node)
    return next((layer for layer in layers if bottom_of_filters(layer) is image), None)


def _in_chain(layers: list[BlockNode], filename: str) -> BlockNode | None:
    from hostel.img.rebase import find_in_chain

    wanted = next((layer for layer in layers if layer.filename == filename), None)
    return wanted or (find_in_chain(layers[0], filename) if layers else None)


def _commit(daemon: Daemon, given: Mapping[str, Any]) -> None:
    node = node_of(daemon, given["device"], by_class=True)
    daemon.nodes.require_root(node)
    node.require_unblocked()
    for one, other in (("top-node", "top"), ("base-node", "base")):
        if one in given and other in given:
            raise generic(f"'{one}' and '{other}' are mutually exclusive")
    chain = list(bottom_of_filters(node).chain())
    top = _layer(daemon, chain, given, "top")
    from_top = chain[next((i for i, layer in enumerate(chain) if layer is top), 0) :]
    if "base" in given or "base-node" in given:
        base = _layer(daemon, from_top["base" in given :], given, "base")
    else:
        base = from_top[-1]
    if base is top:
        raise generic("cannot commit an image into itself")
    backing_file = given.get("backing-file")
    if top is chain[0]:
        if backing_file is not None:
            raise generic("'backing-file' specified, but 'top' is the active layer")
        job = make_job(
            daemon,
            given,
            Needs("mirror_top", node, lambda job, name: of_active_commit(job, name, node, base)),
            lambda settings, replaced: ActiveCommitJob(settings, node, base, replaced=replaced),
        )
    else:
        job = make_job(
            daemon,
            given,
            Needs("commit_top", top, lambda job, name: of_commit(job, name, node, top, base)),
            lambda settings, _: CommitJob(settings, node, top, base, backing_file=backing_file),
        )
    job.launch()


def _layer(daemon: Daemon, chain: list[BlockNode], given: Mapping[str, Any], which: str) -> BlockNode:
    """The ``top`` or ``base`` that is named, by node or by file; ``top`` is the first where nothing is."""
    if f"{which}-node" in given:
        name = given[f"{which}-node"]
        layer = _of_chain(chain, daemon.nodes.find(name))
        if layer is None:
            raise generic(f"'{name}' is not in this backing file chain")
        return layer
    if which not in given:
        return chain[0]
    named = _in_chain(chain, given[which])
    if named is None and which == "top":
        raise generic(f"Top image file {given['top']} not found")
    if named is None:
        raise generic(f"Can't find '{given['base']}' in the backing chain")
    return named


def _mirror(daemon: Daemon, given: Mapping[str, Any]) -> None:
    source = node_of(daemon, given["device"])
    daemon.nodes.require_root(source)
    target = node_of(daemon, given["target"])
    check_granularity(given.get("granularity", 0))
    for node in (source, target):
        daemon.nodes.require_top(node)
        node.require_unblocked()
    start_mirror(daemon, given, source, target)


def start_mirror(
    daemon: Daemon, given: Mapping[str, Any], source: BlockNode, target: BlockNode, owned: BlockNode | None = None
) -> None:
    """Start a mirror; see :func:`make_job`."""
    sync = Sync(given["sync"])
    replaces = daemon.nodes.get(given["replaces"]) if "replaces" in given else source
    if replaces is None:
        raise generic(f"Failed to find node with node-name='{given['replaces']}'")
    if replaces is not source:
        check_replaced(source, replaces)
    if sync in (Sync.BITMAP, Sync.INCREMENTAL) and "bitmap" not in given:
        raise generic(f"Sync mode '{given['sync']}' not supported")
    how = MirrorSettings(
        sync=Sync.FULL if sync is Sync.TOP and bottom_of_filters(source).backing is None else sync,
        copy_mode=CopyMode(given.get("copy-mode", "background")),
        granularity=given.get("granularity", 0),
        buf_size=given.get("buf-size", 0),
        unmap=given.get("unmap", True),
        replaces=None if replaces is source else replaces,
        onto_source=owned is not None and sync is Sync.NONE,
        bitmap=_bitmap(source, given),
        bitmap_mode=BitmapMode(given["bitmap-mode"]) if "bitmap-mode" in given else None,
    )
    check_settings(how)
    check_distinct(source, target)
    make_job(
        daemon,
        given,
        Needs("mirror_top", source, lambda job, name: of_mirror(job, name, source, target), owned),
        lambda settings, replaced: MirrorJob(settings, source, target, how._replace(replaced=replaced)),
    ).launch()


def _bitmap(source: BlockNode, given: Mapping[str, Any]) -> RecordingBitmap | None:
    if "bitmap" not in given:
        return None
    found = named_bitmap(source, given["bitmap"])
    if found is None:
        raise generic(f"Bitmap '{given['bitmap']}' could not be found")
    return found


def _backup(daemon: Daemon, given: Mapping[str, Any]) -> None:
    make_blockdev_backup(daemon, given, None).launch()


def make_blockdev_backup(daemon: Daemon, given: Mapping[str, Any], transaction: JobTransaction | None) -> Job:
    """Make a backup into a node that is there; see :func:`make_job`."""
    source, target = node_of(daemon, given["device"]), node_of(daemon, given["target"])
    return make_backup(daemon, given, source, target, transaction)


def make_backup(
    daemon: Daemon,
    given: Mapping[str, Any],
    source: BlockNode,
    target: BlockNode,
    transaction: JobTransaction | None = None,
    owned: BlockNode | None = None,
) -> Job:
    """Make a backup; see :func:`make_job`."""
    mode = BitmapMode(given["bitmap-mode"]) if "bitmap-mode" in given else None
    require_named(BackupSync(given["sync"]), mode, named="bitmap" in given)
    perf = given.get("x-perf", {})
    how = BackupSettings(
        BackupSync(given["sync"]),
        _bitmap(source, given),
        mode,
        given.get("compress", False),
        max_workers=perf.get("max-workers", 1),
        max_chunk=perf.get("max-chunk", 0),
    )
    check_backup(source, target, how)
    return make_job(
        daemon,
        given,
        Needs("copy-before-write", source, lambda job, name: of_backup(job, name, source, target), owned, transaction),
        lambda settings, _: BackupJob(settings, source, target, how),
    )


_JOB: Final = (
    Parameter("job-id"),
    Parameter("speed", Kind.INT),
    Parameter("auto-finalize", Kind.BOOL),
    Parameter("auto-dismiss", Kind.BOOL),
    Parameter("filter-node-name"),
)
_ONE_POLICY: Final = (*_JOB, Parameter("on-error", values=_POLICIES))
TWO_POLICIES: Final = (
    *_JOB,
    Parameter("on-source-error", values=_POLICIES),
    Parameter("on-target-error", values=_POLICIES),
)
_PERF: Final = (
    Parameter("use-copy-range", Kind.BOOL),
    Parameter("max-workers", Kind.INT),
    Parameter("max-chunk", Kind.INT),
)
BACKUP: Final = (
    needed("device"),
    needed("target"),
    needed("sync", values=tuple(sync.value for sync in BackupSync)),
    Parameter("bitmap"),
    Parameter("bitmap-mode", values=tuple(mode.value for mode in BitmapMode)),
    Parameter("compress", Kind.BOOL),
    Parameter("x-perf", Kind.OBJECT, members=_PERF),
    *TWO_POLICIES,
)
MIRROR: Final = (
    needed("device"),
    needed("target"),
    needed("sync", values=("top", "full", "none", "incremental", "bitmap")),
    Parameter("replaces"),
    Parameter("granularity", Kind.UINT32),
    Parameter("buf-size", Kind.INT),
    Parameter("copy-mode", values=tuple(mode.value for mode in CopyMode)),
    Parameter("unmap", Kind.BOOL),
    # Not QEMU's: what is to be copied, or was left over.
    Parameter("bitmap"),
    Parameter("bitmap-mode", values=tuple(mode.value for mode in BitmapMode)),
    *TWO_POLICIES,
)
COMMANDS: Final = (
    Command(
        "block-stream",
        _stream,
        (
            needed("device"),
            Parameter("base"),
            Parameter("base-node"),
            Parameter("bottom"),
            Parameter("backing-file"),
            *_ONE_POLICY,
        ),
    ),
    Command(
        "block-commit",
        _commit,
        (
            needed("device"),
            Parameter("top"),
            Parameter("top-node"),
            Parameter("base"),
            Parameter("base-node"),
            Parameter("backing-file"),
            *_ONE_POLICY,
        ),
    ),
    Command("blockdev-mirror", _mirror, MIRROR),
    Command("blockdev-backup", _backup, BACKUP),
)
