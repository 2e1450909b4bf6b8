"""The command ``transaction``: several changes at one moment, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.block.jobs import atomic
from hostel.block.jobs.transaction import JobTransaction
from hostel.cli.storage_daemon.monitor import bitmap, block_job, drive_job, snapshot
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic, needed

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon


class _Whole(NamedTuple):
    """What an action is a part of.

    Attributes:
        group: of jobs that succeed or fail together.
        require_lasting: refuses to empty a file for nothing, since an action that follows is sure to fail.
    """

    group: JobTransaction | None
    require_lasting: Callable[[str], None]


# What an action takes, which of that names the node whose writers have to wait, and what makes it.
_Make = Callable[["Daemon", Mapping[str, Any], _Whole], atomic.Action]


def _run(daemon: Daemon, given: Mapping[str, Any]) -> None:
    mode = given.get("properties", {}).get("completion-mode", "individual")
    group = JobTransaction() if mode == "grouped" else None
    kinds: list[str] = []
    atomic.run([_action(daemon, kinds, entry, group) for entry in given["actions"]])


def _action(daemon: Daemon, kinds: list[str], entry: Any, group: JobTransaction | None) -> atomic.Action:
    """An action; ``kinds`` are those of the actions before it, and in its turn those of all."""
    index = len(kinds)
    if not isinstance(entry, Mapping):
        raise generic(f"Invalid parameter type for 'actions[{index}]', expected: object")
    checked = check((needed("type"), Parameter("data", Kind.OBJECT)), entry)
    kind = checked["type"]
    if kind == "abort":
        kinds.append(kind)
        return atomic.Abort()
    if kind not in _KINDS:
        raise generic(f"Parameter 'type' does not accept value '{kind}'")
    kinds.append(kind)
    parameters, place, make = _KINDS[kind]
    arguments = check(parameters, checked.get("data", {}), path="data.")

    def require_lasting(filename: str) -> None:
        from hostel.img.files import holds_nothing

        if "abort" in kinds[index:] and not holds_nothing(filename):
            raise atomic.aborted()

    def made() -> atomic.Action:
        # What empties a file is not begun where one of those after it is sure to be refused.
        due = kinds[index:] if kind == "drive-backup" else [kind]
        alone = next((each for each in due if each in _ALONE), None)
        if group is not None and alone is not None:
            raise generic(f"Action '{alone}' does not support Transaction property completion-mode = grouped")
        return make(daemon, arguments, _Whole(group, require_lasting))

    node = next((daemon.nodes[arguments[name]] for name in place if arguments.get(name) in daemon.nodes), None)
    return atomic.Deferred(node, made)


def _blockdev_backup(daemon: Daemon, given: Mapping[str, Any], whole: _Whole) -> atomic.Action:
    source = block_job.node_of(daemon, given["device"])
    return atomic.StartJob(source, lambda: block_job.make_blockdev_backup(daemon, given, whole.group))


def _drive_backup(daemon: Daemon, given: Mapping[str, Any], whole: _Whole) -> atomic.Action:
    source = block_job.node_of(daemon, given["device"])
    return atomic.StartJob(
        source, lambda: drive_job.make_drive_backup(daemon, given, whole.group, whole.require_lasting)
    )


def _overlay(daemon: Daemon, given: Mapping[str, Any], whole: _Whole) -> atomic.Action:
    return snapshot.make_overlay(daemon, given, whole.require_lasting)


def _by_itself(make: Callable[[Daemon, Mapping[str, Any]], atomic.Action]) -> _Make:
    return lambda daemon, given, whole: make(daemon, given)


_KINDS: Final[Mapping[str, tuple[tuple[Parameter, ...], tuple[str, ...], _Make]]] = {
    "blockdev-backup": (block_job.BACKUP, ("device",), _blockdev_backup),
    "drive-backup": (drive_job.DRIVE_BACKUP, ("device",), _drive_backup),
    **{
        name: (parameters, ("node", "node-name", "device"), _by_itself(make))
        for name, (make, parameters) in {**bitmap.ACTIONS, **snapshot.ACTIONS}.items()
    },
    snapshot.SYNC: (snapshot.ACTIONS[snapshot.SYNC][1], ("node-name", "device"), _overlay),
}
_ALONE: Final = (*bitmap.ACTIONS, *snapshot.ACTIONS)
COMMANDS: Final = (
    Command(
        "transaction",
        _run,
        (
            Parameter("actions", Kind.ARRAY, True),
            Parameter(
                "properties",
                Kind.OBJECT,
                members=(Parameter("completion-mode", values=("individual", "grouped")),),
            ),
        ),
    ),
)
