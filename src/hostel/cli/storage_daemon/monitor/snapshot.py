"""Commands about snapshots, external and internal, which a transaction can do too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block.jobs import atomic
from hostel.block.jobs.overlay import Overlay
from hostel.block.node import BlockNode
from hostel.block.powers import SnapshotInfo, Snapshotting
from hostel.block.rewiring import unfiltered
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.naming import full_name
from hostel.cli.storage_daemon.monitor.parameter import Parameter, generic, needed

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_Make = Callable[["Daemon", Mapping[str, Any]], atomic.Action]


def _append(daemon: Daemon, given: Mapping[str, Any]) -> atomic.Action:
    node = daemon.nodes.find(given["node"], given["node"])
    overlay = given["overlay"]
    return Overlay(daemon.nodes, node, lambda _: daemon.nodes.find(overlay, overlay), owned=False)


def make_overlay(
    daemon: Daemon, given: Mapping[str, Any], emptying: Callable[[str], None] | None = None
) -> atomic.Action:
    """Make a snapshot, and its overlay.

    Args:
        daemon: whose nodes.
        given: the checked arguments.
        emptying: called with the overlay's name before that is made; may raise.
    """
    # Devices have names of their own in QEMU, and there are none here.
    node = daemon.nodes.get(given.get("node-name", ""))
    if node is None:
        raise generic(f"Cannot find device='{given.get('device', '')}' nor node-name='{given.get('node-name', '')}'")
    name = given.get("snapshot-node-name")

    def make(below: BlockNode) -> BlockNode:
        if name is None:
            raise generic("New overlay node-name missing")
        if name in daemon.nodes:
            raise generic("New overlay node-name already in use")
        if given.get("mode") != "existing":
            if emptying is not None:
                emptying(given["snapshot-file"])
            _create(given["snapshot-file"], given.get("format", "qcow2"), unfiltered(below))
        return _open(daemon, given["snapshot-file"], given.get("format", "qcow2"), name, below)

    return Overlay(daemon.nodes, node, make, owned=True)


def _create(filename: str, format: str, below: BlockNode) -> None:
    from hostel.img import create

    plan = create.plan(
        filename,
        format,
        below.length,
        backing=full_name(below),
        backing_format=below.format,
        open_backing=False,
    )
    create.create(plan)


def _open(daemon: Daemon, filename: str, format: str, name: str, below: BlockNode) -> BlockNode:
    """Open an overlay as the node is open whose place it takes."""
    from hostel.block import blockdev, graph

    blockdev.check_node_name(name)
    overlay = graph.open(filename, format, read_only=below.read_only, no_backing=True, cache=below.cache)
    try:
        overlay.name = name
        daemon.nodes.adopt(overlay)
    except BaseException:
        overlay.close()
        daemon.nodes.forget_closed()
        raise
    return overlay


class _Internal(atomic.Action):
    """Keeps the present state in the image itself."""

    def __init__(self, daemon: Daemon, device: str, name: str) -> None:
        super().__init__(daemon.nodes.find(device, device))
        self._daemon, self._device, self._name = daemon, device, name
        self._made: SnapshotInfo | None = None

    def prepare(self) -> None:
        """Make the snapshot."""
        from hostel.img import snapshot

        node = _root(self._daemon, self._device)
        if node.read_only:
            raise generic(f"Device '{self._device}' is read only")
        image = unfiltered(node)
        if not isinstance(image.driver, Snapshotting):
            raise generic(
                f"Block format '{image.format}' used by device '{self._device}' does not support internal snapshots"
            )
        if not self._name:
            raise generic("Name is empty")
        before = snapshot.snapshots(image)
        if any(each.name == self._name for each in before):
            raise generic(f"Snapshot with name '{self._name}' already exists on device '{self._device}'")
        try:
            snapshot.create(image, self._name, icount=None)
        except OSError as error:
            raise generic(
                f"Failed to create snapshot '{self._name}' on device '{self._device}': {error.strerror or error}"
            ) from None
        kept = {each.id for each in before}
        self._made = next(each for each in snapshot.snapshots(image) if each.id not in kept)

    def undo(self) -> None:
        """Drop it; where that fails it is said, since the snapshot stays."""
        assert self._made is not None and self.node is not None
        image = unfiltered(self.node)
        assert isinstance(image.driver, Snapshotting)
        try:
            with image.lock():
                image.driver.snapshot_delete(self._made.id)
        except OSError as error:
            self._daemon.report(
                f"Failed to delete snapshot with id '{self._made.id}' and name '{self._name}' on device "
                f"'{self._device}' in abort: {error}"
            )


def _keep(daemon: Daemon, given: Mapping[str, Any]) -> atomic.Action:
    return _Internal(daemon, given["device"], given["name"])


def _delete(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    from hostel.img import snapshot

    device, identifier, name = given["device"], given.get("id"), given.get("name")
    if identifier is None and name is None:
        _root(daemon, device, unblocked=False)
        raise generic("Name or id must be provided")
    image = unfiltered(_root(daemon, device))
    if not isinstance(image.driver, Snapshotting):
        raise generic("Failed to get a snapshot list: Operation not supported")
    found = next(
        (
            each
            for each in snapshot.snapshots(image)
            if (identifier is None or each.id == identifier) and (name is None or each.name == name)
        ),
        None,
    )
    if found is None:
        raise generic(
            f"Snapshot with id '{_or_null(identifier)}' and name '{_or_null(name)}' does not exist on device '{device}'"
        )
    with image.lock():
        image.driver.snapshot_delete(found.id)
    return _describe(found)


def _describe(found: SnapshotInfo) -> dict[str, Any]:
    seconds, nanoseconds = divmod(found.vm_clock_nsec, 10**9)
    described = {
        "id": found.id,
        "name": found.name,
        "vm-state-size": found.vm_state_size,
        "date-sec": found.date,
        "date-nsec": found.date_nsec,
        "vm-clock-sec": seconds,
        "vm-clock-nsec": nanoseconds,
    }
    return described if found.icount is None else {**described, "icount": found.icount}


def _root(daemon: Daemon, device: str, *, unblocked: bool = True) -> BlockNode:
    """A node that no other stands on and no job uses."""
    node = daemon.nodes.find(device, device)
    daemon.nodes.require_root(node)
    if unblocked:
        node.require_unblocked()
    return node


def _or_null(text: str | None) -> str:
    return "null" if text is None else text


SYNC: Final = "blockdev-snapshot-sync"
ACTIONS: Final[Mapping[str, tuple[_Make, tuple[Parameter, ...]]]] = {
    "blockdev-snapshot": (_append, (needed("node"), needed("overlay"))),
    SYNC: (
        make_overlay,
        (
            Parameter("device"),
            Parameter("node-name"),
            needed("snapshot-file"),
            Parameter("snapshot-node-name"),
            Parameter("format"),
            Parameter("mode", values=("existing", "absolute-paths")),
        ),
    ),
    "blockdev-snapshot-internal-sync": (_keep, (needed("device"), needed("name"))),
}


def _alone(make: _Make) -> Callable[[Daemon, Mapping[str, Any]], Any]:
    return lambda daemon, given: atomic.run([make(daemon, given)])


COMMANDS: Final = (
    *(Command(name, _alone(make), known) for name, (make, known) in ACTIONS.items()),
    Command(
        "blockdev-snapshot-delete-internal-sync",
        _delete,
        (needed("device"), Parameter("id"), Parameter("name")),
    ),
)
