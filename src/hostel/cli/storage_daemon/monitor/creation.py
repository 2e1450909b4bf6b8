"""``blockdev-create``: images are laid out in nodes that are open, or in files; ``x-blockdev-amend`` changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, cast

from hostel.block import blockdev, creating, graph, objects, registry
from hostel.block.composing import Composing, Surroundings
from hostel.block.driver import OpenMode
from hostel.block.formats.vpc.create import settle_size
from hostel.block.jobs.create import AmendJob, CreateJob
from hostel.block.jobs.job import JobSettings
from hostel.block.node import BlockNode
from hostel.block.options import Value, as_text
from hostel.block.permission import Permission
from hostel.block.powers import Amendable, Creatable, Preallocation
from hostel.block.schema import check as check_options
from hostel.block.uses import by_device
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic, needed
from hostel.errors import BlockError, ReadOnly
from hostel.units import SECTOR

if TYPE_CHECKING:
    from hostel.block.driver import BlockDriver
    from hostel.cli.storage_daemon.daemon import Daemon

_PREALLOCATION: Final = Parameter("preallocation", values=tuple(mode.value for mode in Preallocation))
_DRIVERS: Final = (*registry.FORMATS, *registry.PROTOCOLS, *registry.FILTERS, *registry.FILES)
_BACKING: Final = Parameter("backing-file")
_BACKING_FORMAT: Final = Parameter("backing-fmt", values=_DRIVERS)
_FILE: Final = (needed("file", Kind.ANY), needed("size", Kind.SIZE))
_CIPHER: Final = (
    Parameter("key-secret"),
    Parameter("cipher-alg"),
    Parameter("cipher-mode"),
    Parameter("ivgen-alg"),
    Parameter("ivgen-hash-alg"),
    Parameter("hash-alg"),
    Parameter("iter-time", Kind.INT),
)
_ENCRYPTION: Final = Parameter("encrypt", Kind.OBJECT, members=(needed("format", values=("qcow", "luks")), *_CIPHER))
# What each driver takes, in the order in which the schema has it.
_PARAMETERS: Final[Mapping[str, tuple[Parameter, ...]]] = {
    "file": (
        needed("filename"),
        needed("size", Kind.SIZE),
        _PREALLOCATION,
        Parameter("nocow", Kind.BOOL),
        Parameter("extent-size-hint", Kind.SIZE),
    ),
    # Where images are made at other places: what tells the place is the protocol's to check.
    **{
        name: (needed("location", Kind.OBJECT), needed("size", Kind.SIZE), *more)
        for name, more in (
            ("gluster", (_PREALLOCATION,)),
            ("nfs", ()),
            ("rbd", (Parameter("cluster-size", Kind.SIZE),)),
            ("ssh", ()),
        )
    },
    "luks": (*_CIPHER, *_FILE, _PREALLOCATION),
    "parallels": (*_FILE, Parameter("cluster-size", Kind.SIZE)),
    "qcow": (*_FILE, _BACKING, _ENCRYPTION),
    "qcow2": (
        _FILE[0],
        Parameter("data-file", Kind.ANY),
        Parameter("data-file-raw", Kind.BOOL),
        Parameter("extended-l2", Kind.BOOL),
        _FILE[1],
        Parameter("version", values=("v2", "v3")),
        _BACKING,
        _BACKING_FORMAT,
        _ENCRYPTION,
        Parameter("cluster-size", Kind.SIZE),
        _PREALLOCATION,
        Parameter("lazy-refcounts", Kind.BOOL),
        Parameter("refcount-bits", Kind.INT),
        Parameter("compression-type", values=("zlib", "zstd")),
    ),
    "qed": (*_FILE, _BACKING, _BACKING_FORMAT, Parameter("cluster-size", Kind.SIZE), Parameter("table-size", Kind.INT)),
    "vdi": (*_FILE, _PREALLOCATION),
    "vhdx": (
        *_FILE,
        Parameter("log-size", Kind.SIZE),
        Parameter("block-size", Kind.SIZE),
        Parameter("subformat", values=("dynamic", "fixed")),
        Parameter("block-state-zero", Kind.BOOL),
    ),
    "vmdk": (
        *_FILE,
        Parameter("extents", Kind.ARRAY),
        Parameter(
            "subformat",
            values=(
                "monolithicSparse",
                "monolithicFlat",
                "twoGbMaxExtentSparse",
                "twoGbMaxExtentFlat",
                "streamOptimized",
            ),
        ),
        _BACKING,
        Parameter("adapter-type", values=("ide", "buslogic", "lsilogic", "legacyESX")),
        Parameter("hwversion"),
        Parameter("toolsversion"),
        Parameter("zeroed-grain", Kind.BOOL),
    ),
    "vpc": (*_FILE, Parameter("subformat", values=("dynamic", "fixed")), Parameter("force-size", Kind.BOOL)),
}
_KEYS: Final = (
    needed("state", values=("active", "inactive")),
    Parameter("new-secret"),
    Parameter("old-secret"),
    Parameter("keyslot", Kind.INT),
    Parameter("iter-time", Kind.INT),
    Parameter("secret"),
)
_AMENDED: Final[Mapping[str, tuple[Parameter, ...]]] = {
    "luks": _KEYS,
    "qcow2": (
        Parameter(
            "encrypt",
            Kind.OBJECT,
            members=(needed("format", values=("qcow", "luks")), *(each._replace(required=False) for each in _KEYS)),
        ),
    ),
}
_IN_SECTORS: Final = ("qcow2",)
_RENAMED: Final = {"version": "compat"}
_LAYING_OUT: Final = Permission.CONSISTENT_READ | Permission.WRITE | Permission.RESIZE


def _options(given: Mapping[str, Any], declared: Mapping[str, Sequence[Parameter]]) -> tuple[str, Mapping[str, Any]]:
    """The driver that a command's options name, and the others as it has them declared.

    Raises:
        QmpError: one is wrong; with QEMU's text.
    """
    rest = dict(given["options"])
    own = {"driver": rest.pop("driver")} if "driver" in rest else {}
    driver: str = check((needed("driver"),), own, path="options.")["driver"]
    if driver not in _DRIVERS:
        raise generic(f"Parameter 'driver' does not accept value '{driver}'")
    return driver, check(declared.get(driver, ()), rest, path="options.")


def _create(daemon: Daemon, given: Mapping[str, Any]) -> None:
    driver, checked = _options(given, _PARAMETERS)
    if driver not in _PARAMETERS:
        raise generic("Driver does not support blockdev-create")
    identifier = given["job-id"]
    daemon.jobs.require_free(identifier)
    held = ExitStack()
    try:
        create = _prepare(daemon, driver, checked, held)
    except OSError as error:
        failure = error  # of which the job tells

        def create() -> None:
            raise failure

    settings = _settings(daemon, identifier)
    daemon.jobs.add(lambda: CreateJob(settings, create, held.close), identifier).launch()


def _settings(daemon: Daemon, identifier: str) -> JobSettings:
    return JobSettings(identifier, auto_dismiss=False, listener=lambda event: daemon.emit((event.name, event.data)))


def _prepare(daemon: Daemon, driver: str, given: Mapping[str, Any], held: ExitStack) -> Callable[[], None]:
    """Find what an image is to be laid out in, and hold it; what is returned lays it out.

    Raises:
        BlockError: something is not there, or used in a way that forbids it.
    """
    if driver == "file":
        return lambda: _create_file(given)
    if "location" in given:
        return lambda: _create_elsewhere(driver, given)
    node = _referred(daemon, given["file"], held)
    extents = [_referred(daemon, each, held) for each in given.get("extents", ())]
    data = _referred(daemon, given["data-file"], held) if "data-file" in given else None
    values = _values(driver, given)
    if data is not None:
        values["data_file"] = data.filename
    return lambda: _lay_out(driver, node, given, values, extents, data)


def _referred(daemon: Daemon, reference: Any, held: ExitStack) -> BlockNode:
    """The node of a name, or one that is opened by options and closed when the job is over."""
    if isinstance(reference, str):
        node = daemon.nodes.find(reference, reference)
    elif isinstance(reference, Mapping):
        check_options(reference, text=False, path="options.file.")
        given = dict(blockdev.flatten(reference))
        image = blockdev.child(given, probes=False, nodes=daemon.nodes)
        node = held.enter_context(graph.open_node(image, daemon.nodes, read_only=image.read_only))
    else:
        raise BlockError("Invalid parameter type for 'options.file', expected: BlockdevRef")
    if node.read_only:
        raise ReadOnly("Block node is read-only")
    use = by_device(_LAYING_OUT)
    daemon.nodes.hold(node, use)
    held.callback(daemon.nodes.release, node, use)
    return node


def _values(driver: str, given: Mapping[str, Any]) -> dict[str, Value]:
    """The options of creation as the format's driver calls them, with its defaults."""
    declared = registry.format_driver(driver)
    assert isinstance(declared, Creatable)
    known = declared.create_options
    values = {option.name: option.convert(option.default) for option in known if option.default is not None}
    for name, value in blockdev.flatten(given):
        name = _RENAMED.get(name, name)
        found = name if name in known else name.replace("-", "_")
        if found in known and found != "size":
            values[found] = known[found].convert(as_text(value))
    if values.get("encrypt.format") == "qcow":
        values["encrypt.format"] = "aes"
    if driver == "vdi":
        values["static"] = _static(given.get("preallocation", "off"))
    return values


def _static(preallocation: str) -> bool:
    if preallocation not in ("off", "metadata"):
        raise BlockError("Preallocation mode not supported for vdi")
    return preallocation == "metadata"


def _lay_out(
    driver: str,
    node: BlockNode,
    given: Mapping[str, Any],
    values: Mapping[str, Value],
    extents: Sequence[BlockNode],
    data: BlockNode | None,
) -> None:
    size = given["size"]
    format = cast("Creatable", registry.format_driver(driver))
    if driver in _IN_SECTORS and size % SECTOR:
        raise BlockError("Image size must be a multiple of 512 bytes")
    format.check_creation(size, values)
    if driver == "vpc" and not values.get("force_size") and settle_size(size, forced=False)[0] * SECTOR != size:
        raise BlockError("The requested image size cannot be represented in CHS geometry")
    node.resize(0)
    if isinstance(format, Composing):
        around = _Extents(extents, node, values)
        format.compose(node, size, values, around)
        around.require_used()
    else:
        format.create(node, size, values)
    node.flush()
    mode = Preallocation(given.get("preallocation", "off"))
    if data is not None:
        _size_with_data(driver, node, data, size, values, mode)
    if driver == "luks" and mode in (Preallocation.FALLOC, Preallocation.FULL):
        if mode is Preallocation.FALLOC:
            node.preallocate(node.length - size, size)
        else:
            node.write_zeroes(node.length - size, size)


def _size_with_data(
    driver: str, node: BlockNode, data: BlockNode, size: int, values: Mapping[str, Value], mode: Preallocation
) -> None:
    """Give an image with an external data file its size, and what of it is to be reserved."""
    if values.get("data_file_raw") and mode is Preallocation.OFF:
        mode = Preallocation.METADATA  # without a mapping, the tables would say otherwise than the file
    options = {"driver": driver, "file": node.name, "data-file": data.name, "backing": None}
    options |= {name: str(value) for name, value in values.items() if name.endswith("key-secret")}
    nodes = {node.name: node, data.name: data}
    with graph.open_node(blockdev.from_options(options, nodes), nodes, read_only=False) as image:
        image.resize(size, mode)


class _Extents(Surroundings):
    """The nodes that were named for a new image's extents, in their order, and its backing file."""

    def __init__(self, extents: Sequence[BlockNode], file: BlockNode, values: Mapping[str, Value]) -> None:
        self._left: Iterator[BlockNode] = iter(extents)
        self._count = 0
        self._file = file
        self._values = values

    def new_file(self, name: str) -> BlockNode:
        """The next one."""
        node = next(self._left, None)
        if node is None:
            raise BlockError(f"Extent [{self._count}] not specified")
        self._count += 1
        node.resize(0)
        return node.share()

    def backing(self) -> BlockNode:
        """Open the image that is named as backing file."""
        from hostel.block import filename as names

        name = names.resolve(str(self._values["backing_file"]), self._file.place)
        return graph.open(name, no_backing=True, no_io=True, force_share=True)

    def require_used(self) -> None:
        """Refuse nodes that nobody has taken."""
        if next(self._left, None) is not None:
            raise BlockError("List of extents contains unused extents")


def _create_file(given: Mapping[str, Any]) -> None:
    options: dict[str, Value] = {"nocow": given.get("nocow", False)}
    if "extent-size-hint" in given:
        options["extent_size_hint"] = given["extent-size-hint"]
    mode = Preallocation(given.get("preallocation", "off"))
    if mode is Preallocation.METADATA:
        raise BlockError("Unsupported preallocation mode: metadata")
    with creating.create(f"file:{given['filename']}", options=options) as file:
        file.resize(given["size"], mode)


def _create_elsewhere(driver: str, given: Mapping[str, Any]) -> None:
    options: dict[str, Value] = {"cluster_size": given["cluster-size"]} if "cluster-size" in given else {}
    mode = OpenMode(read_only=False, options=options)
    made = registry.protocol_driver(driver).open(dict(blockdev.flatten(given["location"])), mode, creating=True)
    with BlockNode(made, made.filename, read_only=False) as node:
        node.resize(given["size"], Preallocation(given.get("preallocation", "off")))


def _amend(daemon: Daemon, given: Mapping[str, Any]) -> None:
    kind, checked = _options(given, _AMENDED)
    name, identifier = given["node-name"], given["job-id"]
    node = daemon.nodes.get(name)
    if node is None:
        raise generic(f"Cannot find device='' nor node-name='{name}'")
    if node.format != kind:
        raise generic("x-blockdev-amend doesn't support changing the block driver")
    driver = node.driver
    if kind not in _AMENDED or not isinstance(driver, Amendable):
        raise generic("Driver does not support x-blockdev-amend")
    daemon.jobs.require_free(identifier)

    def work() -> None:
        values = _amendments(driver, checked)
        with node.lock():
            driver.amend(values, force=given.get("force", False), report=lambda done, total: None)
        node.flush()

    with ExitStack() as held:
        use = by_device(Permission.CONSISTENT_READ | Permission.WRITE)
        daemon.nodes.hold(node, use)
        held.callback(daemon.nodes.release, node, use)
        settings = _settings(daemon, identifier)
        job = daemon.jobs.add(lambda: AmendJob(settings, work, held.pop_all().close), identifier)
    job.launch()


def _amendments(driver: Amendable, given: Mapping[str, Any]) -> dict[str, Value]:
    """The changes as the format's driver calls them.

    Raises:
        BlockError: they are those of another kind of encryption.
    """
    encryption = given.get("encrypt")
    if encryption is not None:
        shown = (cast("BlockDriver", driver).info().specific or {}).get("encrypt", {}).get("format")
        if shown is None:
            raise BlockError("image is not encrypted, can't amend")
        if shown != encryption["format"].replace("qcow", "aes"):
            raise BlockError("Amend can't be used to change the qcow2 encryption format")
    flat = dict(blockdev.flatten(given))
    for unlocking in ("secret", "encrypt.secret"):
        if unlocking in flat:
            objects.password(flat[unlocking])
    known = driver.amend_options
    return {name: known[name].convert(as_text(value)) for name, value in flat.items() if name in known}


# What the options of a command may be, by their driver.
CHOICES: Final = {"blockdev-create": _PARAMETERS, "x-blockdev-amend": _AMENDED}
COMMANDS: Final = (
    Command("blockdev-create", _create, (needed("job-id"), needed("options", Kind.OBJECT))),
    Command(
        "x-blockdev-amend",
        _amend,
        (needed("job-id"), needed("node-name"), needed("options", Kind.OBJECT), Parameter("force", Kind.BOOL)),
    ),
)
