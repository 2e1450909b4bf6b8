"""Commands that make the target of a job themselves: ``drive-mirror`` and ``drive-backup``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block.jobs.job import Job
from hostel.block.jobs.transaction import JobTransaction
from hostel.block.node import BlockNode
from hostel.block.rewiring import bottom_of_filters, replace_backing, unfiltered
from hostel.cli.storage_daemon.monitor.block_job import BACKUP, MIRROR, make_backup, node_of, start_mirror
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.naming import full_name
from hostel.cli.storage_daemon.monitor.parameter import Parameter, generic

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_TARGET: Final = (Parameter("format"), Parameter("mode", values=("existing", "absolute-paths")))


def _mirror(daemon: Daemon, given: Mapping[str, Any]) -> None:
    source = node_of(daemon, given["device"])
    source.require_unblocked()
    if "replaces" in given and "node-name" not in given:
        raise generic("a node-name must be provided when replacing a named node of the graph")
    if given["sync"] == "none":
        target = _open_target(daemon, given, source, None, recorded=source)
    else:
        backing = bottom_of_filters(source).backing if given["sync"] == "top" else None
        target = _open_target(daemon, given, source, backing)
    try:
        start_mirror(daemon, given, source, target, owned=target)
    except BaseException:
        target.close()
        daemon.nodes.forget_closed()
        raise


def _backup(daemon: Daemon, given: Mapping[str, Any]) -> None:
    make_drive_backup(daemon, given, None).launch()


def make_drive_backup(
    daemon: Daemon,
    given: Mapping[str, Any],
    group: JobTransaction | None,
    emptying: Callable[[str], None] | None = None,
) -> Job:
    """Make a backup, and its target; see :func:`hostel.cli.storage_daemon.monitor.block_job.make_job`.

    ``emptying`` is called with the target's name before that is made, and may raise.
    """
    source = node_of(daemon, given["device"])
    backing = {"top": bottom_of_filters(source).backing, "none": source}.get(given["sync"])
    target = _open_target(daemon, given, source, backing, emptying=emptying)
    target.detect_zeroes = "unmap"
    try:
        return make_backup(daemon, given, source, target, group, owned=target)
    except BaseException:
        target.close()
        daemon.nodes.forget_closed()
        raise


def _open_target(
    daemon: Daemon,
    given: Mapping[str, Any],
    source: BlockNode,
    backing: BlockNode | None,
    recorded: BlockNode | None = None,
    emptying: Callable[[str], None] | None = None,
) -> BlockNode:
    """Make the target where that is asked for, and open it on ``backing``, which the source uses too.

    Args:
        daemon: whose nodes.
        given: the checked arguments.
        source: what the target's size and format are those of.
        backing: what it is opened on.
        recorded: what its metadata names, where that is another one.
        emptying: called with its name before it is made; may raise.

    Raises:
        BlockError: it cannot be made or opened.
    """
    from hostel.block import graph
    from hostel.img import create

    shown = unfiltered(source)
    exists = given.get("mode") == "existing"
    format = given.get("format") or (None if exists else shown.format)
    if not exists:
        named = recorded or backing
        below = None if named is None else unfiltered(named)
        plan = create.plan(
            given["target"],
            str(format),
            source.length,
            backing=None if below is None else full_name(below),
            backing_format=None if below is None else below.format,
            open_backing=False,
        )
        if emptying is not None:
            emptying(plan.filename)
        create.create(plan)
    target = graph.open(given["target"], format, read_only=False, no_backing=True)
    try:
        target.name = given.get("node-name", target.name)
        if backing is not None:
            replace_backing(target, backing.share())
        daemon.nodes.adopt(target)
    except BaseException:
        target.close()
        raise
    return target


DRIVE_BACKUP: Final = (*BACKUP, *_TARGET)
COMMANDS: Final = (
    Command("drive-mirror", _mirror, (*MIRROR, *_TARGET, Parameter("node-name"))),
    Command("drive-backup", _backup, DRIVE_BACKUP),
)
