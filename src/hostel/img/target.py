"""The target of a copy: created, filled, closed with its failures told, and taken away when it is no copy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from hostel.block import blockdev, graph
from hostel.block import filename as names
from hostel.block.driver import Cache
from hostel.block.node import BlockNode
from hostel.cause import hint_of
from hostel.errors import BlockError, ImageLocked
from hostel.img import create
from hostel.img.files import Identity, files, holds_nothing, host_path, identity


@contextlib.contextmanager
def new_target(
    plan: create.Plan, refusal: str, *, cache: Cache, sources: Sequence[BlockNode] = ()
) -> Iterator[BlockNode]:
    """Create an image and open it for writing; when the body fails, nothing is left that looks like an image.

    Args:
        plan: what to create.
        refusal: QEMU's words before the reason why it cannot be created.
        cache: the cache mode.
        sources: what the body reads; no part of the target may be made in their place.

    Raises:
        BlockError: with QEMU's whole text, also where closing it fails.
    """
    path = host_path(plan.filename)
    is_new = path is not None and not os.path.lexists(path)
    if path is not None and not holds_nothing(path):
        # What can be refused is, before what is there is emptied.
        with reported(refusal):
            create.check(plan)
        _check_backing(plan)
    with reported(refusal):
        parts = create.create(plan, cache=cache, refuse=lambda name: refuse_source(sources, name))
    try:
        with reported(f"Could not open '{plan.filename}': "):
            node = graph.open(plan.filename, plan.format, read_only=False, cache=cache, options=plan.secrets())
        with closing(node):
            yield node
    except BaseException:
        for name in parts:
            with contextlib.suppress(OSError):
                os.unlink(name)
        with contextlib.suppress(OSError):
            if is_new and path is not None:
                os.unlink(path)
            elif path is not None:
                os.truncate(path, 0)
        raise


def _check_backing(plan: create.Plan) -> None:
    """Refuse a backing file of this host that the target could not be opened with.

    Opening what lies with a server may use it up: one that serves a single client ends with that.
    """
    if (name := plan.given.get("backing_file")) is None:
        return
    path = names.resolve(str(name), plan.filename)
    if host_path(path) is not None:
        format = plan.given.get("backing_fmt")
        with reported(f"Could not open '{plan.filename}': "), blockdev.as_backing("backing"):
            graph.open(path, None if format is None else str(format), no_backing=True).close()


def refuse_source(sources: Sequence[BlockNode], filename: str) -> None:
    """Refuse to write a file that one of the sources, or of what they stand on, is read from.

    Locks find that out as well, but ``-U`` takes none.

    Raises:
        ImageLocked: it is.
    """
    _refuse(identity(filename), sources, filename)


def refuse_source_node(sources: Sequence[BlockNode], target: BlockNode) -> None:
    """The same for a target that is open. Both may stand on one backing image: that is read only.

    Raises:
        ImageLocked: it is read from.
    """
    for each in files(target, written=True):
        _refuse(each, sources, target.filename)


def _refuse(target: Identity | None, sources: Sequence[BlockNode], filename: str) -> None:
    if target is not None and any(target in files(source) for source in sources):
        raise ImageLocked(
            'Failed to get "write" lock',
            hint=f"Is another process using the image [{filename}]?\nIt is among the files that are read.",
        )


@contextlib.contextmanager
def closing(node: BlockNode) -> Iterator[None]:
    """Flush and close a target, and report what fails of that as a failed write."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            node.close()
        raise
    try:
        try:
            node.flush()
        finally:
            node.close()
    except OSError as error:
        reason = error.message if isinstance(error, BlockError) else error.strerror
        message = f"error while writing the target's metadata: {reason}"
        raise BlockError(message, errno=error.errno, hint=hint_of(error)) from None


@contextlib.contextmanager
def reported(prefix: str) -> Iterator[None]:
    """Put QEMU's words before an error's own."""
    try:
        yield
    except BlockError as error:
        error.message = prefix + error.message
        raise
    except OSError as error:
        hint = hint_of(error)
        raise BlockError(f"{prefix}{error.strerror}", errno=error.errno, hint=hint) from None
