"""What a new image is laid out in: whether its protocol makes a file, and the file."""

from __future__ import annotations

from collections.abc import Mapping

from hostel.block import filename as names
from hostel.block import registry
from hostel.block.driver import WRITEBACK, Cache, OpenMode
from hostel.block.node import BlockNode
from hostel.block.options import Options, Value
from hostel.block.powers import Creatable
from hostel.block.protocol import Creation, ProtocolDriver
from hostel.block.protocols.file import FileDriver, create_file
from hostel.errors import BlockError, UnsupportedFeature


def creation_options(driver: Creatable, filename: str = "") -> Options:
    """What can be asked for when an image of a format is created: the format's own options, and the protocol's.

    Args:
        driver: the format's.
        filename: whose protocol it is; none for a file of this host.

    Raises:
        BlockError: as :func:`creation`.
    """
    if filename:
        creation(filename)
    protocol = registry.protocol_name(filename) if filename else "file"
    if protocol == FileDriver.name:
        return driver.create_options + FileDriver.create_options
    if protocol in registry.FILES:
        return driver.create_options + ProtocolDriver.create_options
    return driver.create_options + registry.protocol_driver(protocol).create_options


def creation(filename: str) -> Creation:
    """What becomes of an image that is created under a name; ``Creation.NONE`` is never the answer.

    Raises:
        BlockError: the name is of a protocol that we do not have, or of one that only reads.
    """
    protocol = registry.filter_of(names.protocol(filename) or "") or registry.protocol_name(filename)
    if protocol in registry.FILES:
        return Creation.NEW if protocol == FileDriver.name else Creation.IN_PLACE
    found = registry.protocol_driver(protocol).creation if protocol in registry.PROTOCOLS else Creation.NONE
    if found is Creation.NONE:
        raise UnsupportedFeature(f"Protocol driver '{protocol}' does not support image creation")
    return found


def in_place(path: str) -> str:
    """The words before the reason why what is to be used in place of a new image cannot be opened."""
    protocol = registry.protocol_name(path)
    return f"Protocol driver '{protocol}' does not support image creation, and opening the image failed: "


def create(
    path: str, *, cache: Cache = WRITEBACK, options: Mapping[str, Value] | None = None, emptied: bool = True
) -> BlockNode:
    """Create an empty file, or empty an existing one, and open it for writing: what a format is laid out in.

    With a protocol that cannot create anything, what is there is opened, and keeps its size.

    Args:
        path: the file's name.
        cache: the cache mode.
        options: converted options, of which the protocol takes its own.
        emptied: whether an existing file of this host loses what it holds.

    Raises:
        BlockError: the protocol is unknown or the host refuses; the text is QEMU's.
        ImageLocked: another process uses the file.
    """
    mode = OpenMode(read_only=False, cache=cache, options=options or {})
    protocol = registry.protocol_name(path)
    how = creation(path)
    try:
        if protocol in registry.FILES:
            scheme = names.protocol(path)
            return create_file(path.removeprefix(f"{scheme}:"), mode=mode, name=scheme or "", emptied=emptied)
        driver_class = registry.protocol_driver(protocol)
        driver = driver_class.open(driver_class.parse_filename(path), mode, creating=True)
    except BlockError as error:
        if how is Creation.IN_PLACE:
            error.message = in_place(path) + error.message
        raise
    return BlockNode(driver, driver.filename, read_only=False, cache=cache)
