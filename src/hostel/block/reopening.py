"""Opening nodes again in their places with other options, as ``blockdev-reopen`` does: all of them, or none.

Options that are not said go back to their defaults, but for a few; what a driver cannot change must be said as it is. A
child that was opened for its node alone goes by what is said of that; one with a name of its own can be exchanged.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.block import blockdev, notice, registry
from hostel.block.draining import drained
from hostel.block.driver import Cache, FilterDriver, Supports
from hostel.block.node import BlockNode
from hostel.block.options import OptionError, Value, as_text
from hostel.block.permission import Permission
from hostel.block.powers import ModeChange, Reopenable
from hostel.block.protocols.file import FileDriver
from hostel.block.rewiring import retire, unfiltered
from hostel.block.tree import tree
from hostel.errors import BlockError

if TYPE_CHECKING:
    from hostel.block.nodes import NodeTable

# What every driver lets change, and what may be left out however it was opened.
_CHANGING: Final = frozenset(
    {"read-only", "auto-read-only", "cache.direct", "cache.no-flush", "discard", "detect-zeroes"}
)
_LEFT_OUT: Final = _CHANGING | {"node-name"}
_INHERITED: Final = ("cache.direct", "cache.no-flush", "force-share")
# Drivers all of whose own options may change; and single ones of others.
_FREE: Final = frozenset({"qcow2", "raw", "throttle", "preallocate"})
_FREE_OPTIONS: Final[Mapping[str, frozenset[str]]] = {"file": frozenset({"drop-cache", "x-check-cache-dropped"})}
_EXCHANGED: Final = ("backing", "file")
_UNWRITABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class _Settings(NamedTuple):
    """What of a node changes beside its driver."""

    read_only: bool
    cache: Cache
    discards: bool
    detect_zeroes: str
    filename: str
    given: Mapping[str, Any]
    inheriting: frozenset[str]

    @classmethod
    def of(cls, node: BlockNode) -> _Settings:
        return cls(
            node.read_only,
            node.cache,
            node.discards,
            node.detect_zeroes,
            node.filename,
            node.given,
            node.inheriting,
        )

    def put(self, node: BlockNode) -> None:
        for name, value in self._asdict().items():
            setattr(node, name, value)


class _Entry:
    """A node that is opened again.

    Attributes:
        image: where its driver is: jobs put filters over it.
        explicit: what was said of it.
        lacks_backing: nothing was said of what it stands on.
        options: that, and what it inherits.
        before: what it is now.
        after: what it shall be.
        children: the nodes that take the place of its children; None leaves the edge out.
        former: the children that it has now.
        converted: its driver's own options, as the driver takes them.
        exchanged: its driver is another one already.
    """

    def __init__(self, node: BlockNode, explicit: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.node = node
        self.image = unfiltered(node)
        self.explicit = dict(explicit)
        self.lacks_backing = False
        self.options = dict(options)
        self.before = _Settings.of(node)
        self.after = self.before
        self.children: dict[str, BlockNode | None] = {}
        self.former = dict(self.image.driver.children)
        self.converted: Mapping[str, Value] = {}
        self.exchanged = False

    def settle(self, settings: _Settings) -> None:
        """Let the node be what ``settings`` say."""
        settings.put(self.node)
        self.image.read_only, self.image.cache = settings.read_only, settings.cache
        self.image.filename, self.image.given = settings.filename, settings.given
        self.image.inheriting = settings.inheriting

    @property
    def needs_driver(self) -> bool:
        """Whether the driver has to be another one, and not the node alone."""
        before, after = self.before, self.after
        own = {key for key in {**before.given, **after.given} if key not in _LEFT_OUT}
        return (
            before.read_only != after.read_only
            or before.cache != after.cache
            or "file" in self.children
            or any(before.given.get(key) != after.given.get(key) for key in own)
        )


def remember(node: BlockNode, given: Mapping[str, Any]) -> None:
    """Write down what a node was opened with: ``given`` by dotted names, and those of its children within."""
    own = dict(given)
    inheriting: set[str] = set()
    for edge, child in node.driver.children.items():
        if edge in own:
            del own[edge]
            continue
        inheriting.add(edge)
        below = _take(own, edge)
        if not below and isinstance(child.driver, FileDriver):
            below = {"driver": child.format, "filename": child.filename}  # named by the image itself
        remember(child, below)
    node.given = {key: value for key, value in own.items() if value is not None}
    node.inheriting = frozenset(inheriting)


def _take(options: dict[str, Any], edge: str) -> dict[str, Any]:
    prefix = f"{edge}."
    return {key.removeprefix(prefix): options.pop(key) for key in list(options) if key.startswith(prefix)}


def reopen(table: NodeTable, wanted: Sequence[tuple[BlockNode, blockdev.Described, Mapping[str, Any]]]) -> None:
    """Open nodes again.

    Args:
        table: whose they are.
        wanted: each node, and what is said of it: read, and by dotted names.

    Raises:
        BlockError: with QEMU's text; all nodes are as before then.
        OSError: the host's own errors; likewise.
    """
    entries: dict[int, _Entry] = {}
    for node, _, given in wanted:
        _queue(entries, node, dict(given), {}, keep=False)
    described = {id(node): image for node, image, _ in wanted}
    with ExitStack() as stack:
        concerned = {id(each): each for entry in entries.values() for each in tree(entry.node)}
        stack.enter_context(drained(*concerned.values()))
        for entry in entries.values():
            if not entry.node.read_only:
                entry.node.flush()
        for entry in entries.values():
            _prepare(table, entry, described.get(id(entry.node)))
        with ExitStack() as undo:
            for entry in entries.values():
                undo.callback(_take_back, entry)
                _connect(entry)
            ordered = list(entries.values())
            _require_compatible(table, ordered)
            _exchange(ordered)
            undo.pop_all()
    for entry in ordered:
        _release(entry)


def _queue(
    entries: dict[int, _Entry], node: BlockNode, options: dict[str, Any], inherited: Mapping[str, Any], *, keep: bool
) -> None:
    """Note down a node and those of its children that go by what is said of it."""
    known = entries.get(id(node))
    if known is not None or keep:
        options = {**(node.given if known is None else known.explicit), **options}
    explicit = dict(options)
    options = {**inherited, **options}
    lacks_backing = not keep and "backing" not in options and "backing.driver" not in options
    if keep:
        options = {**_effective(node), **node.given, **options}
    image = unfiltered(node)
    below: list[tuple[BlockNode, dict[str, Any], str, bool]] = []
    for edge, child in image.driver.children.items():
        if edge not in node.inheriting:
            continue
        if edge in options:
            if options[edge] == child.name:
                below.append((child, {}, edge, True))
            continue
        _take(explicit, edge)
        below.append((child, _take(options, edge), edge, keep))
    entries[id(node)] = _Entry(node, explicit, options)
    entries[id(node)].lacks_backing = lacks_backing
    for child, part, edge, kept in below:
        _queue(entries, child, part, _inherited(edge, options), keep=kept)


def _effective(node: BlockNode) -> dict[str, Any]:
    """What a node goes by now, whether that was said of it or not."""
    return {
        "read-only": node.read_only,
        "cache.direct": node.cache.direct,
        "cache.no-flush": node.cache.no_flush,
        "detect-zeroes": node.detect_zeroes,
    }


def _inherited(edge: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a child goes by where nothing is said of itself."""
    found = {name: options[name] for name in _INHERITED if name in options}
    if edge == "backing":
        return {**found, "read-only": True, "auto-read-only": False}
    found |= {name: options[name] for name in ("read-only", "auto-read-only") if name in options}
    return {**found, "discard": "unmap"}


def _is_on(options: Mapping[str, Any], name: str) -> bool:
    return as_text(options.get(name, False)) == "on"


def _prepare(table: NodeTable, entry: _Entry, described: blockdev.Described | None) -> None:
    """Find out what an entry's node shall be, and refuse what cannot be."""
    node, driver, options = entry.node, entry.image.driver, entry.options
    discards = blockdev.unmaps(options, node.discards)
    blockdev.check_zero_detection(options, discards)
    if not isinstance(driver, Reopenable):
        raise BlockError(
            f"Block format '{driver.name}' used by node '{node.name}' does not support reopening files",
            errno=errno.ENOTSUP,
        )
    free = _free(entry)
    for key in node.given:
        if key not in options and key not in _LEFT_OUT and key not in free:
            raise OptionError(f"Option '{key}' cannot be reset to its default value")
    _require_backing(entry)
    for edge in _EXCHANGED:
        _choose_child(table, entry, edge)
    for key, value in options.items():
        if key in _CHANGING or key in _EXCHANGED or key in free or key.startswith("encrypt."):
            continue
        child = driver.children.get(key)
        if child is not None and value == child.name:
            continue
        if key == "driver" and key not in node.given and value == driver.name:
            continue
        if key not in node.given or as_text(value) != as_text(node.given[key]):
            raise OptionError(f"Cannot change the option '{key}'")
    entry.converted = _converted(driver.name, options)
    entry.after = _Settings(
        _is_on(options, "read-only"),
        node.cache._replace(direct=_is_on(options, "cache.direct"), no_flush=_is_on(options, "cache.no-flush")),
        discards,
        as_text(options.get("detect-zeroes", "off")),
        _filename(entry, described),
        {key: value for key, value in entry.explicit.items() if key not in _EXCHANGED},
        node.inheriting.difference(entry.children),
    )


def _free(entry: _Entry) -> frozenset[str]:
    """The options of an entry's driver that may change."""
    name = entry.image.format
    if name not in _FREE:
        return _FREE_OPTIONS.get(name, frozenset())
    return frozenset(option.name for option in entry.image.driver.options if not option.name.startswith("encrypt."))


def _require_backing(entry: _Entry) -> None:
    """Refuse options that leave open what an overlay stands on."""
    driver = entry.image.driver
    if not driver.supports & Supports.BACKING or not entry.lacks_backing:
        return
    if "backing" in driver.children or any(reference.child == "backing" for reference in driver.references()):
        raise OptionError(f"backing is missing for '{entry.node.name}'")


def _choose_child(table: NodeTable, entry: _Entry, edge: str) -> None:
    """Find the node that is to take the place of a child."""
    options, node = entry.options, entry.node
    if edge not in options:
        return
    name, former = options[edge], entry.image.driver.children.get(edge)
    child = None if name is None else table.find(name)
    if child is not None and any(each is node for each in tree(child)):
        raise BlockError(f"Making '{name}' a {edge} child of '{node.name}' would create a cycle", errno=errno.EINVAL)
    if child is former or (former is not None and child is unfiltered(former)):
        return
    if node.blockers and former is not None:
        raise BlockError(f"Cannot change frozen '{edge}' link from '{node.name}' to '{former.name}'", errno=errno.EPERM)
    driver = entry.image.driver
    if isinstance(driver, FilterDriver):
        if former is None:
            raise OptionError(f"'{node.name}' is a {driver.name} filter node that does not support a {edge} child")
    elif edge == "backing" and not driver.supports & Supports.BACKING:
        raise OptionError(f"Driver '{driver.name}' of node '{node.name}' does not support backing files")
    elif edge == "file" and former is None:
        raise OptionError("Cannot set file child to format node without file child")
    entry.children[edge] = child


def _filename(entry: _Entry, described: blockdev.Described | None) -> str:
    """How a node is called once its file is another one, or its window in that."""
    if described is None or not described.format or not ("file" in entry.children or entry.image.format in _FREE):
        return entry.node.filename
    if described.format in registry.FILTERS:
        return described.name
    file = entry.children.get("file") or entry.image.file
    if file is None or described.format not in registry.FORMATS:
        return entry.node.filename
    is_file = isinstance(unfiltered(file).driver, FileDriver)
    return blockdev.name_over(described, described.format, file.filename, is_file=is_file)


def _require_compatible(table: NodeTable, entries: Sequence[_Entry]) -> None:
    """Refuse what others forbid, as if all were done already."""
    writing = Permission.WRITE | Permission.WRITE_UNCHANGED
    with ExitStack() as stack:
        for entry in entries:
            for node in (entry.node, entry.image):
                stack.callback(setattr, node, "read_only", entry.before.read_only)
                node.read_only = entry.after.read_only
        for entry in entries:
            used, _ = table.permissions(entry.node)
            if entry.after.read_only and not entry.before.read_only and used & writing:
                raise BlockError(
                    f"Read-only block node '{entry.node.name}' cannot support read-write users", errno=errno.EPERM
                )
        for entry in entries:
            table.require_compatible(entry.node)


def _connect(entry: _Entry) -> None:
    """Give a node its new children; its driver has not noticed that yet."""
    children = entry.image.driver.children
    for edge, child in entry.children.items():
        children.pop(edge, None)
        if child is not None:
            children[edge] = child.share()


def _exchange(entries: Sequence[_Entry]) -> None:
    """Open the drivers again: first what is written from now on, from below; then the rest, from above."""
    depth = {id(entry): len(tree(entry.node)) for entry in entries}
    rising = [entry for entry in entries if entry.before.read_only and not entry.after.read_only]
    others = [entry for entry in entries if entry not in rising]
    rising.sort(key=lambda entry: depth[id(entry)])
    others.sort(key=lambda entry: -depth[id(entry)])
    for entry in (*rising, *others):
        if entry.needs_driver:
            _exchange_driver(entry)
        entry.settle(entry.after)


def _exchange_driver(entry: _Entry) -> None:
    driver = entry.image.driver
    assert isinstance(driver, Reopenable)
    try:
        fresh = driver.reopened(_change(entry.after, entry.converted))
    except BlockError as error:
        if entry.after.read_only or not _is_on(entry.options, "auto-read-only") or error.errno not in _UNWRITABLE:
            raise
        entry.after = entry.after._replace(read_only=True)
        fresh = driver.reopened(_change(entry.after, entry.converted))
    entry.image.exchange(fresh)
    entry.exchanged = True


def _change(settings: _Settings, options: Mapping[str, Value]) -> ModeChange:
    return lambda mode: mode._replace(
        read_only=settings.read_only,
        cache=settings.cache._replace(writethrough=False),
        unmap=settings.discards,
        options=options,
    )


def _take_back(entry: _Entry) -> None:
    """Let a node be what it was; that its driver cannot be opened so again is told, and it stays as it is."""
    driver = entry.image.driver
    added = [child for edge, child in driver.children.items() if entry.former.get(edge) is not child]
    driver.children.clear()
    driver.children.update(entry.former)
    try:
        if entry.exchanged:
            assert isinstance(driver, Reopenable)
            converted = _converted(driver.name, entry.before.given)
            entry.image.exchange(driver.reopened(_change(entry.before, converted)))
        entry.settle(entry.before)
    except OSError as error:
        notice.tell(f"'{entry.node.name}' could not be opened again as it was: {error}")
    for child in added:
        child.close()


def _converted(name: str, given: Mapping[str, Any]) -> dict[str, Value]:
    """Those of the given options that are a driver's own, as its mode has them."""
    if name in registry.FORMATS:
        declared = registry.format_driver(name).options
        return {key: declared[key].convert(as_text(value)) for key, value in given.items() if key in declared}
    if name in registry.FILTERS:
        declared = registry.filter_driver(name).options
        return {key: as_text(value) for key, value in given.items() if key in declared}
    return {}


def _release(entry: _Entry) -> None:
    """Close what a node does not stand on any more."""
    for edge in entry.children:
        if (former := entry.former.get(edge)) is not None:
            retire(former)
