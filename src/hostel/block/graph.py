"""Opening images: protocol node, format node, backing chain.

>>> with open("disk.qcow2", "qcow2") as node:  # doctest: +SKIP
...     node.read(0, 512)
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from hostel.block import blockdev, following, parent, probe, registry, unclosed
from hostel.block.blockdev import Described
from hostel.block.driver import (
    MAX_PARTS_OF_ONE_FILE,
    WRITEBACK,
    BlockDriver,
    Cache,
    FilterDriver,
    FormatDriver,
    OpenMode,
    Reference,
)
from hostel.block.node import BlockNode
from hostel.block.options import OptionError, Value
from hostel.block.permission import Permission
from hostel.block.protocols.file import FileDriver, open_file
from hostel.block.reading import read_or_say
from hostel.block.tree import require_distinct, require_writable
from hostel.block.trust import Trust
from hostel.errors import BlockError, CorruptImage, InvalidImage, UnknownFormat, UnsupportedFeature

# A longer chain is a mistake or an attack: QEMU itself gets slow long before.
MAX_CHAIN: Final = 200
MAX_LENGTH: Final = (1 << 63) - (1 << 30)  # QEMU's BDRV_MAX_LENGTH: what 63 bits hold, in whole GiB


def open(
    filename: str | Described,
    format: str | None = None,
    *,
    read_only: bool = True,
    no_backing: bool = False,
    check: bool = False,
    no_io: bool = False,
    force_share: bool = False,
    exclusive: bool = False,
    writable_backing: int = 0,
    cache: Cache = WRITEBACK,
    unmap: bool = True,
    trust: Trust = Trust.TRUSTED,
    options: Mapping[str, Value] | None = None,
) -> BlockNode:
    """Open an image with everything it stands on.

    Args:
        filename: a path, a protocol's name such as ``nbd://host``, ``json:{...}``, or what was described by options.
        format: the driver's name; None guesses from the bytes, which an untrusted image must not be asked to do.
        read_only: open for reading only. Backing files always are, one excepted:
        writable_backing: how far down the chain the backing file is that is opened for writing; 0 for none.
        no_backing: leave the backing file alone.
        check: see :class:`OpenMode`.
        no_io: see :class:`OpenMode`.
        force_share: take no locks; only with ``read_only``.
        exclusive: see :class:`OpenMode`.
        cache: the cache mode of the image; what it stands on is read in the same.
        unmap: see :class:`OpenMode`; what is below always does.
        trust: what the image's metadata may make us touch.
        options: the format driver's runtime options, converted.

    Raises:
        BlockError: with QEMU's text, without the leading ``Could not open '<filename>'``.
        OSError: the host's own errors while reading.
    """
    image = filename if isinstance(filename, Described) else following.describe(filename, format, options)
    mode = _mode_of(
        image,
        OpenMode(
            read_only=read_only,
            check=check,
            no_io=no_io,
            force_share=force_share,
            exclusive=exclusive,
            trust=trust,
            cache=cache,
            unmap=unmap,
        ),
    )
    top = _open_tree(image, mode, writable_backing, no_backing=no_backing or image.no_backing)
    try:
        _use(top, mode)
    except BaseException:
        _abandon(top)
        raise
    if not top.read_only:
        unclosed.remember(top)
    return top


def _use(top: BlockNode, mode: OpenMode) -> None:
    """Find what forbids that an open tree is used."""
    require_distinct(top)
    if not top.read_only:
        require_writable(top)
    if isinstance(top.driver, FilterDriver) and not mode.force_share:
        _lock(top, *_permissions(mode, is_raw=True))


def open_node(image: Described, nodes: Mapping[str, BlockNode], *, read_only: bool) -> BlockNode:
    """Open a node beside others: its children may be references to them, and a file's bytes are a node of their own.

    Args:
        image: what options describe.
        nodes: the open nodes by their names.
        read_only: open for reading only.

    Raises:
        BlockError: with QEMU's text.
        OSError: the host's own errors while reading.
    """
    mode = OpenMode(read_only=read_only, nodes=nodes)
    node = _open_child(image, mode)
    if isinstance(node.driver, FilterDriver) and not image.force_share:
        try:
            _lock(node, *_permissions(mode, is_raw=True))
        except BaseException:
            _abandon(node)
            raise
    return node


def _open_tree(image: Described, mode: OpenMode, writable_backing: int, *, no_backing: bool) -> BlockNode:
    """Open an image with what it refers to."""
    top = _open_image(image, mode, writable_backing, no_backing=no_backing)
    if isinstance(top.driver, FilterDriver):
        return top
    try:
        _open_references(image, top, mode, writable_backing, no_backing=no_backing)
    except BaseException:
        _abandon(top)
        raise
    return top


def _mode_of(image: Described, mode: OpenMode) -> OpenMode:
    """The mode that an image is opened in: what its options say goes before what it would inherit."""
    return _mode_with(image.node, mode)._replace(options=image.options)


def _mode_with(options: Mapping[str, Value], mode: OpenMode) -> OpenMode:
    """A mode after the options that every node takes."""
    read_only = mode.read_only or options.get("read-only") is True
    force_share = mode.force_share or options.get("force-share") is True
    if force_share and not read_only:
        raise BlockError("force-share=on can only be used with read-only images", errno=errno.EINVAL)
    return mode._replace(
        read_only=read_only,
        force_share=force_share,
        cache=_cache_of(options, mode.cache),
        unmap=blockdev.unmaps(options, mode.unmap),
    )


def _cache_of(options: Mapping[str, Value], cache: Cache) -> Cache:
    direct, no_flush = options.get("cache.direct"), options.get("cache.no-flush")
    return cache._replace(
        direct=cache.direct if direct is None else direct is True,
        no_flush=cache.no_flush if no_flush is None else no_flush is True,
    )


def _node(
    driver: BlockDriver,
    filename: str,
    mode: OpenMode,
    options: Mapping[str, Value],
    *,
    probed: bool = False,
    bounded: bool = False,
) -> BlockNode:
    """A node with the options that every node takes."""
    node = BlockNode(driver, filename, read_only=mode.read_only, cache=mode.cache, probed=probed, bounded=bounded)
    node.name = str(options.get("node-name", node.name))
    node.discards = mode.unmap
    node.detect_zeroes = str(options.get("detect-zeroes", "off"))
    return node


def _abandon(node: BlockNode) -> None:
    """Close what could not be opened to the end; the error that says why comes from elsewhere."""
    with contextlib.suppress(OSError):
        node.close()


def _open_image(image: Described, mode: OpenMode, writable_backing: int = 0, *, no_backing: bool = False) -> BlockNode:
    """Open one image without what it refers to; of a filter, all that it stands on."""
    if image.format in registry.FILTERS:
        return _open_filter(image, mode, writable_backing, no_backing=no_backing)
    if image.format in registry.PROTOCOLS or image.format in registry.FILES:
        return _open_protocol(image, mode, bounded=image.format in registry.PROTOCOLS)
    driver_class = registry.format_driver(image.format) if image.format is not None else None
    below = mode._replace(unmap=True)
    file = _open_child(image.children["file"], below) if "file" in image.children else _open_protocol(image, below)
    try:
        if not mode.read_only and image.format != "raw":
            require_writable(file)
        if driver_class is None:
            driver_class = registry.format_driver(_probe(file, mode.trust))
            if image.pending:
                settled = blockdev.settle(image, driver_class.name)
                mode = mode._replace(options=settled.options)
                image = settled._replace(format=None)
        mode = mode._replace(probed=image.format is None)
        with _parts(image, file, driver_class.name, mode) as parts:
            if not mode.force_share:
                for node in (file, *parts.values()):
                    _lock(node, *_permissions(mode, is_raw=driver_class.name in ("raw", "luks")))
            blockdev.check_zero_detection(image.node, mode.unmap)
            driver = _open_driver(driver_class, file, mode._replace(parts=parts))
    except BaseException:
        file.close()
        raise
    name = blockdev.name_over(image, driver.name, file.filename, is_file=isinstance(file.driver, FileDriver))
    return _node(driver, name, mode, image.node, probed=mode.probed)


def _open_driver(driver_class: type[FormatDriver], file: BlockNode, mode: OpenMode) -> FormatDriver:
    """Let a format read its metadata; of an error that the host raised, QEMU says which file it was."""
    try:
        return driver_class.open(file, mode)
    except OSError as error:
        if isinstance(error, BlockError):
            raise
        from hostel.cause import failed

        raise failed(f"Could not open '{file.filename}'", error) from error


@contextlib.contextmanager
def _parts(image: Described, file: BlockNode, format: str, mode: OpenMode) -> Iterator[Mapping[str, BlockNode]]:
    """Open what an image cannot be opened without, beside its file; close it where that fails."""
    with contextlib.ExitStack() as opened:
        parts: dict[str, BlockNode] = {}
        for edge in registry.FORMATS[format].parts:
            if edge in image.children:
                parts[edge] = _open_child(image.children[edge], mode)
                opened.callback(_abandon, parts[edge])
                if _identity(parts[edge]) == _identity(file):
                    raise OptionError(f"'{edge}' and 'file' are the same: '{file.filename}'")
        yield parts
        opened.pop_all()


def _open_filter(image: Described, mode: OpenMode, writable_backing: int, *, no_backing: bool) -> BlockNode:
    """Open a filter and all that it stands on."""
    assert image.format is not None
    driver_class = registry.filter_driver(image.format)
    with contextlib.ExitStack() as opened:
        children: dict[str, BlockNode] = {}
        for edge, child in image.children.items():
            children[edge] = _open_child(child, mode, writable_backing, no_backing=no_backing)
            opened.callback(_abandon, children[edge])
        blockdev.check_zero_detection(image.node, mode.unmap)
        driver = driver_class.open(children, mode._replace(options=image.options))
        opened.pop_all()
    name = driver_class.filename(image.options, {edge: node.filename for edge, node in children.items()})
    return _node(driver, name or image.name, mode, image.node)


def _open_child(image: Described, mode: OpenMode, writable_backing: int = 0, *, no_backing: bool = False) -> BlockNode:
    """Open a node that options describe below another one, or take the open one that they refer to."""
    if image.reference:
        return _refer(image.reference, mode)
    below = _mode_of(image, mode._replace(cache=mode.cache._replace(writethrough=False), unmap=True))
    if image.format in registry.PROTOCOLS:
        return _open_protocol(image, below)
    return _open_tree(image, below, writable_backing, no_backing=no_backing or image.no_backing)


def _refer(name: str, mode: OpenMode) -> BlockNode:
    return mode.nodes[name].share()


def _lock(node: BlockNode, used: Permission, shared: Permission) -> None:
    """Lock the files that a node's bytes lie in; formats below have locked theirs."""
    if isinstance(node.driver, FileDriver):
        node.driver.lock(used, shared)
    elif isinstance(node.driver, FilterDriver) or node.format == "raw":
        if isinstance(node.driver, FilterDriver) and node.driver.alike:
            shared &= ~(Permission.WRITE | Permission.RESIZE)
        for child in node.driver.children.values():
            _lock(child, used, shared)


def _open_protocol(image: Described, mode: OpenMode, *, bounded: bool = False) -> BlockNode:
    """Open what an image lies in."""
    # A driver that was named in a format's place says itself what a name lacks.
    name = (
        image.format if image.format in registry.PROTOCOLS else image.protocol or registry.protocol_name(image.filename)
    )
    options = image.file_options
    mode = _mode_with(options, mode)
    blockdev.check_zero_detection(options, mode.unmap)
    if name in registry.FILES or "driver" in options:
        kind = str(options.get("driver", name))
        path = image.filename.removeprefix(f"{kind}:")
        if not path:
            raise BlockError(f"The '{kind}' block driver requires a file name", errno=errno.EINVAL)
        # A plain name is that of a device too.
        chosen = kind if "driver" in options or name != "file" else _device_driver(image.format)
        return _within_length(_node(open_file(path, mode._replace(options=options), chosen), path, mode, options))
    driver_class = registry.protocol_driver(name)
    given = image.protocol_options if image.protocol else driver_class.parse_filename(image.filename)
    driver = driver_class.open(given, mode)
    return _within_length(_node(driver, driver.filename, mode, options, bounded=bounded))


def _within_length(node: BlockNode) -> BlockNode:
    """A node that is no longer than one may be, whatever the host or a server says; that is refused, and closed."""
    try:
        length = node.length
    except OSError:
        return node  # a drive without a medium: whoever reads it learns of that
    if length > MAX_LENGTH:
        _abandon(node)
        raise BlockError(f"Could not refresh total sector count: {os.strerror(errno.EFBIG)}", errno=errno.EFBIG)
    return node


def _device_driver(format: str | None) -> str:
    """The driver of a device that is named in a format's place; nothing where any kind of file will do."""
    return format if format in registry.FILES and format != FileDriver.name else ""


def _permissions(mode: OpenMode, *, is_raw: bool) -> tuple[Permission, Permission]:
    """What we use of the file and what others may do with it meanwhile, as QEMU's graph works it out.

    A format's metadata must not change under us; raw has none, so a raw image may be read while a machine writes it.
    """
    used = Permission.CONSISTENT_READ
    shared = Permission.ALL
    if not mode.read_only:
        used |= Permission.WRITE | Permission.RESIZE
    if not is_raw or not mode.read_only or mode.exclusive:
        shared &= ~(Permission.WRITE | Permission.RESIZE)
    return used, shared


def _probe(file: BlockNode, trust: Trust) -> str:
    length = min(probe.HEAD_LENGTH, file.length)
    head = read_or_say(file, 0, length, "Could not read image for determining its format")
    found = probe.detect(head, file.filename)
    if found == "raw" and trust is Trust.UNTRUSTED:
        raise UnknownFormat(f"'{file.filename}' is of no known format", hint="Say so if it is raw: -f raw.")
    return found


def _open_references(
    image: Described, top: BlockNode, mode: OpenMode, writable_backing: int, *, no_backing: bool
) -> None:
    """Open what ``top`` names, or what its options put in its place, and the chain below it, from top to bottom."""
    seen = {_identity(top)}
    current = top
    described: Described | None = image  # what options say of the present one
    for depth in range(1, MAX_CHAIN + 1):
        alone = no_backing or (described is not None and described.no_backing)
        references = [
            reference
            for reference in _references(current, described)
            if reference.essential or not (alone if reference.child == "backing" else mode.no_io)
        ]
        if not references:
            return
        if mode.trust is Trust.UNTRUSTED:
            raise following.untrusted(current, references[0])
        backing, below_it = None, None
        # What else an image names, a file for its data, is used as the image itself is.
        own = mode if depth - 1 in (0, writable_backing) else mode._replace(read_only=True, cache=WRITEBACK)
        parts: Counter[object] = Counter()
        for reference in references:
            given = described.children.get(reference.child) if described is not None else None
            if given is not None and given.partial:
                given = following.complete(current, reference, given)
            mode_of_edge = mode if reference.child == "backing" else own
            with _below(depth - 1):
                below = _open_reference(current, reference, given, mode_of_edge, writable=depth == writable_backing)
            current.driver.children[reference.child] = below
            parts[_identity(below)] += reference.essential
            if parts[_identity(below)] > MAX_PARTS_OF_ONE_FILE:
                message = f"More than {MAX_PARTS_OF_ONE_FILE} extents lie in '{below.filename}', under several names"
                raise UnsupportedFeature(message)
            if reference.child == "backing":
                if _identity(below) in seen:
                    raise CorruptImage(
                        f"Backing file '{below.filename}' of '{current.filename}' creates an infinite loop",
                        errno=errno.EINVAL,
                    )
                seen.add(_identity(below))
                # A node that was open before has what it stands on.
                backing = None if given is not None and given.reference else below
                below_it = given
        current.driver.assembled()
        if backing is None:
            return
        current, described = backing, below_it
    raise BlockError(f"The backing chain has more than {MAX_CHAIN} images", errno=errno.ELOOP)


@contextlib.contextmanager
def _below(depth: int) -> Iterator[None]:
    """Say of an error how many overlays there are above what cannot be opened, as QEMU does."""
    try:
        yield
    except BlockError as error:
        error.message = "Could not open backing file: " * depth + error.message
        raise


def _references(node: BlockNode, image: Described | None) -> list[Reference]:
    """What an image names, and what its options add to that."""
    found = list(node.driver.references())
    known = {"file", *node.driver.children, *(each.child for each in found)}
    added = set(image.children if image is not None else ()) - known
    if "data-file" in added:
        raise OptionError("'data-file' can only be set for images with an external data file")
    return found + [Reference(edge, "", None) for edge in sorted(added)]


def _open_reference(
    holder: BlockNode, reference: Reference, given: Described | None, mode: OpenMode, *, writable: bool
) -> BlockNode:
    is_backing = reference.child == "backing"
    if given is None and not is_backing and not reference.filename:
        raise InvalidImage(f"'{reference.child}' is required for this image")
    followed = given is None
    if given is None:
        given = following.follow(holder, reference)
    below = OpenMode(
        read_only=(is_backing and not writable) or mode.read_only,
        no_io=mode.no_io,
        force_share=mode.force_share,
        exclusive=mode.exclusive,
        trust=mode.trust,
        cache=holder.cache._replace(writethrough=False) if is_backing and not writable else mode.cache,
        nodes=mode.nodes,
    )
    if given.reference:
        node = _refer(given.reference, below)
        if not below.read_only:
            require_writable(node)
        return node
    below = _mode_of(given, below)
    if reference.essential:
        return _open_part(given, below)
    try:
        node = _open_image(given, below)
        if followed and reference.unique_id:
            _require_parent(holder, reference, node)
        return node
    except BlockError as error:
        if is_backing:
            error.message = f"Could not open backing file: {error.message}"
        raise


def _require_parent(holder: BlockNode, reference: Reference, node: BlockNode) -> None:
    try:
        parent.require(reference, holder.filename, node)
    except BaseException:
        _abandon(node)
        raise


def _open_part(image: Described, mode: OpenMode) -> BlockNode:
    """Open a part of an image that lies in a file of its own: bytes that nobody may change but who writes the image."""
    node = _open_protocol(image, mode)
    try:
        if not mode.force_share:
            _lock(node, *_permissions(mode, is_raw=False))
    except BaseException:
        _abandon(node)
        raise
    return node


def _identity(node: BlockNode) -> object:
    """What tells two names of one file from two files."""
    while node.file is not None:
        node = node.file
    return node.driver.identity if isinstance(node.driver, FileDriver) else node.filename
