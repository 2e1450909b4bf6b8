"""Images described by options instead of a name: ``--image-opts`` and ``json:{...}``, in ``-blockdev``'s words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.block import filename as names
from hostel.block import notice, registry
from hostel.block.filename import Name
from hostel.block.options import Kind, Option, OptionError, Options, Value, as_text, check_numbered
from hostel.errors import BlockError, UnknownFormat

if TYPE_CHECKING:
    from hostel.block.node import BlockNode

JSON_PREFIX: Final = "json:"

# What every node takes.
NODE_OPTIONS: Final = Options(
    Option("node-name", Kind.STRING, "Node name of the block device node"),
    Option("read-only", Kind.BOOL, "Node is opened in read-only mode"),
    Option("auto-read-only", Kind.BOOL, "Node can become read-only if opening read-write fails"),
    Option("force-share", Kind.BOOL, "always accept other writers"),
    Option("discard", Kind.STRING, "discard operation (ignore/off, unmap/on)"),
    Option("detect-zeroes", Kind.STRING, "try to optimize zero writes (off, on, unmap)"),
    Option("cache.direct", Kind.BOOL, "Bypass software writeback cache on the host"),
    Option("cache.no-flush", Kind.BOOL, "Ignore flush requests"),
)
FILE_OPTIONS: Final = NODE_OPTIONS + Options(
    Option("driver", Kind.STRING, "driver"),
    Option("filename", Kind.STRING, "File name of the image"),
    Option("aio", Kind.STRING, "host AIO implementation (threads, native, io_uring)"),
    Option("locking", Kind.STRING, "file locking mode (on/off/auto, default: auto)"),
    Option("drop-cache", Kind.BOOL, "invalidate page cache during live migration"),
    Option("x-check-cache-dropped", Kind.BOOL, "check that page cache was dropped on live migration"),
)
_CHOICES: Final = {
    "discard": (("ignore", "off", "unmap", "on"), "Invalid discard option"),
    "detect-zeroes": (("off", "on", "unmap"), "invalid parameter value: {}"),
    "aio": (("threads", "native", "io_uring"), "invalid parameter value: {}"),
    "locking": (("auto", "off", "on"), "invalid parameter value: {}"),
}
_NO_FILE_OPTION: Final = "Block protocol 'file' doesn't support the option"
_NODE_NAME: Final = r"[A-Za-z][A-Za-z0-9._-]*"
_MAX_NODE_NAME: Final = 31
# Options that change what is in the image: its name must tell them.
STRONG: Final = {"raw": ("offset", "size"), "luks": ("key-secret",), "qcow2": ("encrypt.key-secret",)}


class Described(NamedTuple):
    """An image, from its options.

    Attributes:
        filename: the file that holds it.
        format: None where the options leave it to a guess.
        options: the format driver's runtime options, converted.
        name: how QEMU calls the image: the file's name where that says everything, else ``json:{...}``.
        read_only: writing is forbidden whatever the caller wants.
        force_share: no locks are taken.
        no_backing: the backing file is left alone (``backing`` is null).
        protocol: what the image lies in, where options describe that; empty where ``filename`` says it.
        protocol_options: what they say, as given.
        children: the nodes of this one's edges, where options describe more than a file's name. A filter has all its
            children here, and its options as text; a child of format ``file`` is the file itself.
        tree: what ``json:{...}`` says of it, where it is a child.
        strong: options change what the file's content means, so that its name does not say everything.
        node: the options that every node takes, converted.
        file_options: those of what holds the image, a file or a protocol's node, converted.
        pending: options as given, for the driver that a guess will name: see :func:`settle`.
        partial: options of a backing file, as given, whose name the image has: see :func:`complete`.
        reference: the name of a node that is open already, and then nothing else is said.
    """

    filename: str
    format: str | None
    options: dict[str, Value]
    name: str
    read_only: bool = False
    force_share: bool = False
    no_backing: bool = False
    protocol: str = ""
    protocol_options: Mapping[str, Any] = {}
    children: Mapping[str, Described] = {}
    tree: Mapping[str, Any] = {}
    strong: bool = False
    node: Mapping[str, Value] = {}
    file_options: Mapping[str, Value] = {}
    pending: Mapping[str, Any] = {}
    partial: Mapping[str, Any] = {}
    reference: str = ""


_NONE: Final[Mapping[str, BlockNode]] = {}
_UNNAMED: Final = Described("", None, {}, "")


def from_json(name: str, driver: str | None = None) -> Described:
    """Read a ``json:{...}`` name; a driver that was named beside it is the one that counts.

    Raises:
        OptionError: it is no JSON object, or an option is unknown or wrong.
    """
    options = _parse(name)
    return from_options(options if driver is None else {**options, "driver": driver})


def _parse(name: str) -> dict[str, Any]:
    from hostel.codec.qobject import parse_json

    try:
        tree = parse_json(name.removeprefix(JSON_PREFIX))
    except ValueError as error:
        raise OptionError(f"Could not parse the JSON options: {error}") from None
    if not isinstance(tree, dict):
        raise OptionError("Invalid JSON object given")
    return dict(flatten(tree))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """An object as ``a.b.c`` names; lists by the numbers of their items."""
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            flat += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat += flatten({str(index): item for index, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, value))
    return flat


def typed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options whose values are text as JSON would give them: names that tell them are compared with such."""
    driver = tree.get("driver")
    declared = FILE_OPTIONS
    for known, of in (
        (registry.FORMATS, registry.format_driver),
        (registry.PROTOCOLS, registry.protocol_driver),
        (registry.FILTERS, registry.filter_driver),
    ):
        if driver in known:
            declared = NODE_OPTIONS + of(str(driver)).options

    def convert(part: Any, path: str) -> Any:
        if isinstance(part, Mapping):
            return typed(part) if path and "driver" in part else {k: convert(v, f"{path}{k}.") for k, v in part.items()}
        name = path.removesuffix(".")
        if not isinstance(part, str) or name not in declared:
            return part
        kind = declared[name].kind
        if kind is Kind.BOOL and part in ("on", "off"):
            return part == "on"
        return int(part) if kind in (Kind.SIZE, Kind.NUMBER) and part.isascii() and part.isdigit() else part

    return dict(convert(tree, ""))


def from_options(given: Mapping[str, Any], nodes: Mapping[str, BlockNode] = _NONE) -> Described:
    """Read options by their dotted names; values as text, or as JSON gives them.

    Args:
        given: the options.
        nodes: open nodes by their names, which may stand in a child's place.

    Raises:
        OptionError: an option is unknown, missing or wrong.
        UnsupportedFeature: a driver or an option of QEMU that is not implemented.
    """
    rest = dict(given)
    format = rest.get("driver")
    if not isinstance(format, str):
        rest.pop("driver", None)
    if format in registry.FILTERS:
        return _filter(str(format), rest, nodes)
    file = _take(rest, "file")
    node = rest.pop("file", None)
    if node is not None:
        if file:
            raise OptionError("Cannot reference an existing block device with additional options or a new filename")
        file = {"": _reference(node, nodes)}
    format = rest.pop("driver", None)
    if format in registry.FILES:
        return _file_alone({**rest, "driver": format})._replace(format=str(format))
    if format in registry.PROTOCOLS:
        return _protocol_alone(format, rest)
    if format is None and not file:
        raise OptionError("Must specify either driver or file")
    if format is not None and format not in registry.FORMATS:
        raise UnknownFormat(f"Unknown driver '{format}'")
    if not file:
        raise OptionError('A block device must be specified for "file"')
    return _format(format, file, rest, nodes)


def _reference(name: object, nodes: Mapping[str, BlockNode]) -> Described:
    """A child that is a node already."""
    if name not in nodes:
        raise OptionError(f"Cannot find device='{name}' nor node-name='{name}'")
    return _UNNAMED._replace(reference=str(name), tree=tree_of(nodes[str(name)]))


def tree_of(node: BlockNode) -> dict[str, Any]:
    """What ``json:{...}`` says of an open node, by what it was called when it was opened."""
    if node.filename.startswith(JSON_PREFIX):
        from hostel.codec.qobject import parse_json

        return dict(parse_json(node.filename.removeprefix(JSON_PREFIX)))
    if not node.driver.children:
        return {"driver": node.format, "filename": node.filename}
    shown = {edge: child for edge, child in node.driver.children.items() if edge != "backing"}
    return {"driver": node.format, **{edge: tree_of(child) for edge, child in shown.items()}}


def rename(node: BlockNode) -> None:
    """Call a node whose numbered children are other ones now by what opens it."""
    edge = registry.FILTERS[node.format].edges[0]
    node.filename = json_name({**tree_of(node), edge: [tree_of(child) for child in node.driver.children.values()]})


def _format(
    format: str | None, file: dict[str, Any], rest: dict[str, Any], nodes: Mapping[str, BlockNode]
) -> Described:
    """A format over what ``file.*`` describes."""
    children: dict[str, Described] = {}
    below, below_options, filename = "", dict[str, Any](), ""
    file_options: dict[str, Value] = {}
    file = _resolved(file)
    if "" in file:
        children["file"] = file[""]
    elif _is_node(file):
        children["file"] = child(file, probes=False, nodes=nodes)
    else:
        below, below_options = _protocol(file)
        filename = "" if below else _filename(file)
        file_options = _common(file) if below else _convert(FILE_OPTIONS, file, _NO_FILE_OPTION)
    no_backing = "backing" in rest and rest["backing"] in (None, "")
    if no_backing and rest.pop("backing") is not None:
        notice.tell('warning: Use of "backing": "" is deprecated; use "backing": null instead')
    parts = registry.FORMATS[format].parts if format is not None else ()
    for edge in ("backing", "data-file", *parts):
        if edge in rest:
            with as_backing(edge):
                children[edge] = _reference(rest.pop(edge), nodes)
        elif options := _take(rest, edge):
            children[edge] = (
                _backing(options, nodes) if edge == "backing" else child(options, probes=False, nodes=nodes)
            )
    settled = _common(rest)
    rest = {key: value for key, value in rest.items() if key not in NODE_OPTIONS}
    if "file" in children:
        name, tree = children["file"].name, children["file"].tree
    else:
        own = {"driver": file_options.get("driver", "file"), "filename": filename}
        # What only a name can give is no option.
        told = {key: value for key, value in below_options.items() if not key.startswith("=")}
        tree = {"driver": below, **told} if below else own
        # A protocol knows its name when it is open.
        name = filename
    image = Described(
        filename,
        format,
        {},
        name,
        settled.get("read-only") is True,
        settled.get("force-share") is True,
        no_backing,
        below,
        below_options,
        children,
        tree,
        node=settled,
        file_options=file_options,
        pending=rest,
    )
    return image if format is None else settle(image, format)


def _backing(options: dict[str, Any], nodes: Mapping[str, BlockNode]) -> Described:
    """A backing file; one without a name has the one that the image gives it."""
    if not any(key.split(".")[-1] == "filename" or key == "file" for key in options):
        return _UNNAMED._replace(partial=options)
    with as_backing("backing"):
        return child(options, probes=True, nodes=nodes)


@contextlib.contextmanager
def as_backing(edge: str) -> Iterator[None]:
    """Say of an error that it is about the backing file, where that is the child in question."""
    try:
        yield
    except BlockError as error:
        if edge == "backing":
            error.message = f"Could not open backing file: {error.message}"
        raise


def settle(image: Described, format: str) -> Described:
    """What an image's options say, now that its format is known.

    Raises:
        OptionError: an option is not the format's, or wrong.
    """
    rest = image.pending
    options = _convert(
        registry.format_driver(format).options, rest, f"Block format '{format}' does not support the option"
    )
    strong = {key: rest[key] for key in STRONG.get(format, ()) if key in rest}
    parts = {edge: dict(image.children[edge].tree) for edge in registry.FORMATS[format].parts if edge in image.children}
    tree = {"driver": format, "file": dict(image.tree), **parts, **strong}
    is_layered = "file" in image.children and image.children["file"].format in registry.FORMATS
    is_json = strong or parts or is_layered or image.name.startswith(JSON_PREFIX)
    return image._replace(
        format=format,
        options={**image.options, **options},
        name=json_name(tree) if is_json else image.name,
        tree=tree,
        strong=bool(strong or parts or is_layered),
        pending={},
    )


def name_over(image: Described, format: str, below: str, *, is_file: bool) -> str:
    """How an image is called that was opened in a file, or in another node whose name is ``below``."""
    is_json = below.startswith(JSON_PREFIX)
    name = image.name if is_file or is_json or image.strong else below
    if image.strong:
        return name
    if is_json and image.filename and name == image.filename:
        name = ""  # a protocol's own name, which leaves out what is said by options
    if not name and not is_json:
        return below  # it lies in a node that was open
    # Where only options say what the image lies in, only they say what it is.
    return name or f'{JSON_PREFIX}{{"driver": "{format}", "file": {below.removeprefix(JSON_PREFIX)}}}'


def complete(image: Described, filename: str, format: str | None) -> Described:
    """A backing file whose options leave its name, or also its format, to the image that it is below.

    Raises:
        OptionError: the image names none either; or an option is wrong.
    """
    options = dict(image.partial)
    if format is not None:
        options.setdefault("driver", format)
    if filename:
        options = with_filename(options, filename)
    return from_options(options)


def _filter(name: str, rest: dict[str, Any], nodes: Mapping[str, BlockNode] = _NONE) -> Described:
    """A filter over the nodes that its edges describe."""
    row, driver = registry.FILTERS[name], registry.filter_driver(name)
    del rest["driver"]
    if "filename" in rest:
        given = driver.parse_filename(str(rest.pop("filename")))
        rest = {key: Name(text) if key.endswith(".filename") else text for key, text in given.items()} | rest
    children: dict[str, Described] = {}
    if row.lists:
        check_numbered(row.edges[0], rest)
    for edge in row.edges:
        number = 0
        while (place := f"{edge}.{number}" if row.lists else edge) in rest or (options := _take(rest, place)):
            if place not in rest:
                children[place] = child(options, probes=edge in row.probes, nodes=nodes)
            elif rest[place] is not None:
                children[place] = _reference(rest.pop(place), nodes)
            else:
                raise OptionError(f'A block device must be specified for "{place}"')
            number += 1
            if not row.lists:
                break
    for edge in () if row.lists else row.edges:
        if edge not in children:
            raise OptionError(f'A block device must be specified for "{edge}"')
    settled = _common(rest)
    rest = {key: value for key, value in rest.items() if key not in NODE_OPTIONS}
    trees: dict[str, Any] = {edge: dict(each.tree) for edge, each in children.items()}
    below = {row.edges[0]: list(trees.values())} if row.lists else trees
    tree: dict[str, Any] = {"driver": name, **rest, **below}
    return Described(
        "",
        name,
        {key: as_text(value) for key, value in rest.items()},
        json_name(tree),
        settled.get("read-only") is True,
        settled.get("force-share") is True,
        children=children,
        tree=tree,
        node=settled,
    )


def child(options: Mapping[str, Any], *, probes: bool, nodes: Mapping[str, BlockNode] = _NONE) -> Described:
    """A node below another one, by its options; one without a driver is a file, or where it ``probes`` an image in it.

    Raises:
        OptionError: an option is unknown, missing or wrong.
    """
    rest = _resolved(options)
    driver = rest.get("driver")
    filename = rest.get("filename")
    if driver is None and isinstance(filename, str) and probes:
        return from_options({f"file.{key}": value for key, value in rest.items()})
    row = registry.FILTERS.get(str(driver))
    if filename is not None and (driver in registry.FORMATS or (row is not None and not row.scheme)):
        return child({"file.filename": rest.pop("filename"), **rest}, probes=probes, nodes=nodes)
    if driver is None or driver in registry.FILES:
        if driver is None and any(key.startswith("file.") for key in rest):
            return from_options(rest, nodes)
        found = _file_alone(rest)
        kind = driver or "file"
        return found._replace(format=kind, tree={"driver": kind, "filename": found.filename})
    return from_options(rest, nodes)


def from_filename(name: str) -> Described | None:
    """What a name with a filter's scheme describes; None for every other name.

    Raises:
        OptionError: it is no such name.
    """
    found = registry.filter_of(names.protocol(name) or "")
    return None if found is None else _filter(found, {"driver": found, "filename": name})


def with_filename(options: Mapping[str, Any], filename: str) -> dict[str, Any]:
    """Options beside a file name: it is the node's own where its driver has names, else that of its child ``file``.

    Raises:
        OptionError: the name begins with ``json:`` and is no JSON object.
    """
    if filename.startswith(JSON_PREFIX):
        return {**_parse(filename), **options}
    driver = options.get("driver", "")
    row = registry.FILTERS.get(driver)
    own = driver in registry.PROTOCOLS or driver in registry.FILES or (row is not None and row.scheme)
    return {"filename" if own else "file.filename": Name(filename), **options}


def _resolved(options: Mapping[str, Any]) -> dict[str, Any]:
    """A node's options, of which a :class:`Name` is told apart: the driver that it begins with, and the path in it.

    Raises:
        UnsupportedFeature: it is of a protocol that we do not have.
    """
    rest = dict(options)
    name = rest.get("filename")
    if not isinstance(name, Name):
        return rest
    scheme = names.protocol(name)
    if "driver" not in rest and scheme not in (None, "file"):
        rest["driver"] = registry.filter_of(str(scheme)) or registry.protocol_name(name)
    if rest.get("driver", "file") in registry.FILES:
        rest["filename"] = names.of_path(name.removeprefix(f"{scheme}:")) if scheme in registry.FILES else str(name)
    return rest


def _take(rest: dict[str, Any], edge: str) -> dict[str, Any]:
    """Take the options of a child out of its parent's."""
    prefix = f"{edge}."
    return {key.removeprefix(prefix): rest.pop(key) for key in list(rest) if key.startswith(prefix)}


def _is_node(file: Mapping[str, Any]) -> bool:
    """Whether ``file.*`` describes a node of its own: a filter, or another format."""
    driver = file.get("driver")
    return driver in registry.FILTERS or driver in registry.FORMATS


def _file_alone(rest: dict[str, Any]) -> Described:
    """``driver=file``: the file's bytes, without a format above them."""
    rest = _resolved(rest)
    filename = _filename(rest)
    options = _convert(FILE_OPTIONS, rest, _NO_FILE_OPTION)
    return Described(
        filename,
        "raw",
        {},
        filename,
        options.get("read-only") is True,
        options.get("force-share") is True,
        node={key: value for key, value in options.items() if key in NODE_OPTIONS},
        file_options=options,
    )


def _protocol_alone(name: str, rest: dict[str, Any]) -> Described:
    """``driver=nbd``: a protocol's bytes, without a format above them."""
    _, options = _protocol({"driver": name, **rest})
    # What only a name can give is no option.
    tree = {"driver": name, **{key: value for key, value in options.items() if not key.startswith("=")}}
    settled = _common(rest)
    return Described(
        "",
        name,
        {},
        "",
        settled.get("read-only") is True,
        settled.get("force-share") is True,
        protocol=name,
        protocol_options=options,
        tree=tree,
        node=settled,
        file_options=settled,
    )


def _protocol(file: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What of ``file.*`` describes a protocol other than ``file``: its name, or nothing, and its options."""
    name = file.get("driver", "file")
    if name not in registry.PROTOCOLS:
        return "", {}
    options = {key: value for key, value in file.items() if key not in NODE_OPTIONS and key != "driver"}
    filename = options.pop("filename", None)
    if filename is None:
        return name, options
    named = registry.protocol_driver(name).parse_filename(str(filename))
    for key in options:
        if key in named or key in ("host", "port", "path", "export") or key.startswith("server."):
            raise OptionError(f"Option '{key}' cannot be used with a file name")
    return name, {**named, **options}


def _filename(file: dict[str, Any]) -> str:
    """The name of a file described by ``file.*``, all of which are checked: a path, whatever it looks like."""
    if "filename" not in file and any(key.startswith("file.") for key in file) and "driver" not in file:
        raise OptionError("Must specify either driver or file")
    driver = file.get("driver", "file")
    if driver not in registry.FILES:
        raise UnknownFormat(f"Unknown driver '{driver}'")
    if not file.get("filename"):
        raise OptionError(f"The '{driver}' block driver requires a file name")
    _convert(FILE_OPTIONS, file, _NO_FILE_OPTION)
    return names.of_path(str(file["filename"]))


def _common(given: Mapping[str, Any]) -> dict[str, Value]:
    """What of the options every node takes, converted."""
    return _convert(NODE_OPTIONS, {key: value for key, value in given.items() if key in NODE_OPTIONS}, "")


def unmaps(options: Mapping[str, Value], inherited: bool) -> bool:
    """Whether a node discards, by the options that every node takes."""
    return options["discard"] in ("unmap", "on") if "discard" in options else inherited


def check_zero_detection(options: Mapping[str, Value], unmap: bool) -> None:
    """Refuse zeroes that give space back in a node that gives none back.

    Raises:
        OptionError: with QEMU's text.
    """
    if options.get("detect-zeroes") == "unmap" and not unmap:
        raise OptionError("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")


def _convert(declared: Options, given: Mapping[str, Any], refusal: str) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, value in given.items():
        if name not in declared:
            raise OptionError(f"{refusal} '{name}'")
        text = as_text(value)
        if name == "node-name":
            check_node_name(text)
        elif name in _CHOICES:
            allowed, message = _CHOICES[name]
            if text not in allowed:
                raise OptionError(message.format(text))
        values[name] = declared[name].convert(text)
    return values


def check_node_name(name: str) -> None:
    """Refuse what no node can be called.

    Raises:
        OptionError: with QEMU's text.
    """
    if not re.fullmatch(_NODE_NAME, name, re.ASCII):
        raise OptionError(f"Invalid node-name: '{name}'")
    if len(name) > _MAX_NODE_NAME:
        raise OptionError("Node name too long")


def json_name(tree: Mapping[str, Any]) -> str:
    """Options as a name that opens what they describe."""
    from hostel.codec.qobject import compact_json

    return JSON_PREFIX + compact_json(dict(tree))
