"""Opening what ``qemu-nbd`` serves: the image, a part of it, a snapshot of it, or an overlay that is forgotten."""

from __future__ import annotations

import contextlib
import errno
import os

from hostel.block import blockdev, graph, registry
from hostel.block.bitmap import DirtyBitmap
from hostel.block.driver import OpenMode
from hostel.block.formats.raw import RawDriver
from hostel.block.node import BlockNode
from hostel.block.powers import BitmapStore
from hostel.block.protocols.file import FileDriver
from hostel.block.tree import layers
from hostel.cause import hint_of
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.opening import image_options, warn_of_guess
from hostel.cli.qemu.output import Output, reason
from hostel.cli.qemu_nbd.settings import Settings
from hostel.errors import BlockError


def open_image(settings: Settings, output: Output) -> BlockNode:
    """Open the image as the settings want it.

    Raises:
        Failure: it cannot be opened; the text is QEMU's.
        BlockError: the part or the snapshot that was asked for is not there.
    """
    if settings.has("image-opts") and settings.has("format"):
        raise Failure("--image-opts and -f are mutually exclusive")
    name = settings.operands[0]
    described: str | blockdev.Described = name
    named = ""
    try:
        if settings.has("image-opts"):
            options = image_options(output, name)
            described = blockdev.from_options(options)
            named = _json_name(options)
        if settings.has("snapshot"):
            node = _open_overlay(settings, described, _absolute(name) if isinstance(described, str) else named)
        else:
            node = graph.open(
                described,
                settings.get("format"),
                read_only=settings.read_only,
                cache=settings.cache,
                unmap=settings.unmap,
            )
        _require_direct(settings, node)
    except OSError as error:
        hint = hint_of(error)
        raise BlockError(f"Failed to blk_new_open '{name}': {reason(error)}", errno=error.errno, hint=hint) from None
    try:
        if node.probed and node.format == "raw" and not node.read_only:
            warn_of_guess(output, node.filename)
        if node.read_only and not settings.read_only:
            raise Failure("Block node is read-only")
        node = _part(settings, node)
        # What options say of the image does not count, as in QEMU.
        node.detect_zeroes = settings.detect_zeroes
        return node
    except BaseException:
        with contextlib.suppress(OSError):
            node.close()
        raise


def _require_direct(settings: Settings, node: BlockNode) -> None:
    """Refuse what QEMU's files cannot do; closes the image then. Which way is asked for makes no difference to ours."""
    if settings.get("aio") == "native" and not settings.cache.direct and _lies_in_file(node):
        node.close()
        raise BlockError(
            "aio=native was specified, but it requires cache.direct=on, which was not specified.", errno=errno.EINVAL
        )


def _lies_in_file(node: BlockNode) -> bool:
    while node.file is not None:
        node = node.file
    return isinstance(node.driver, FileDriver)


def _part(settings: Settings, node: BlockNode) -> BlockNode:
    wanted = settings.get("load-snapshot")
    if wanted is not None:
        from hostel.img import snapshot

        parts = settings.snapshot_parts
        try:
            if parts is None:
                snapshot.load_by_id_or_name(node, wanted)
            else:
                snapshot.load(node, parts.get("snapshot.id"), parts.get("snapshot.name"))
        except OSError as error:
            raise Failure(f"Failed to load snapshot: {reason(error)}") from None
    if not settings.offset:
        return node
    mode = OpenMode(read_only=node.read_only, cache=node.cache, options={"offset": settings.offset})
    part = BlockNode(RawDriver.open(node, mode), node.filename, read_only=node.read_only, cache=node.cache)
    part.discards = settings.unmap
    return part


def _open_overlay(settings: Settings, described: str | blockdev.Described, backing: str) -> BlockNode:
    """Lay an empty overlay over the image; its file has no name any more, and goes when it is closed."""
    import tempfile

    from hostel.img import create

    with graph.open(described, settings.get("format"), no_io=True) as base:
        size, format = base.length, base.format
    folder = os.environ.get("TMPDIR", "/var/tmp")
    descriptor, path = tempfile.mkstemp(prefix="vl.", dir=folder)
    os.close(descriptor)
    try:
        create.create(create.plan(path, "qcow2", size, backing=backing, backing_format=format))
        return graph.open(path, "qcow2", read_only=False, cache=settings.cache, unmap=settings.unmap)
    finally:
        os.unlink(path)


def _absolute(name: str) -> str:
    """The name of an image, as an image in another directory must call it."""
    if name.startswith(blockdev.JSON_PREFIX) or registry.protocol_name(name) != "file":
        return name
    return os.path.abspath(name.removeprefix("file:"))


def _json_name(options: dict[str, str]) -> str:
    from hostel.codec.qobject import compact_json

    return blockdev.JSON_PREFIX + compact_json(options)


def find_bitmaps(settings: Settings, node: BlockNode) -> dict[str, DirtyBitmap]:
    """The bitmaps that were asked for, each in the first image of the chain that has one of its name.

    Raises:
        Failure: there is none of a name.
        BlockError: one is inconsistent.
    """
    return {name: _find_bitmap(node, name) for name in settings.bitmaps}


def _find_bitmap(node: BlockNode, name: str) -> DirtyBitmap:
    for layer in layers(node):
        driver = layer.driver
        if isinstance(driver, BitmapStore) and any(found.name == name for found in driver.bitmaps()):
            return driver.bitmap(name)
    raise Failure(f"Bitmap '{name}' is not found")
