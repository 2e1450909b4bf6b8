"""One run of ``qemu-io``: the open image, and where it prints."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hostel.block import blockdev, graph
from hostel.block import reopen as reopening
from hostel.block.driver import Cache
from hostel.block.node import BlockNode
from hostel.cause import hint_of
from hostel.cli.qemu.opening import warn_of_guesses
from hostel.cli.qemu.output import Output
from hostel.cli.qemu.output import reason as full_reason
from hostel.cli.qemu_io.command import CommandError
from hostel.cli.qemu_io.outstanding import Outstanding
from hostel.errors import BlockError, Mismatch, OutOfRange, ReadOnly
from hostel.img import exercise

WRITETHROUGH = Cache(writethrough=True)


class Opening(NamedTuple):
    """How an image is opened.

    Attributes:
        filename: None where the options say it.
        options: option tree, flat, with dotted names.
        copy_on_read: what is read from a backing file is kept in the image.
        snapshot: what is written goes to a file that is forgotten.
        aio: how a file is read and written, which makes no difference, and ``native`` needs direct input and output.
    """

    filename: str | None
    format: str | None = None
    options: Mapping[str, str] = {}
    read_only: bool = False
    force_share: bool = False
    cache: Cache = WRITETHROUGH
    copy_on_read: bool = False
    snapshot: bool = False
    aio: str = ""


class Session:
    """The image, and the streams.

    Attributes:
        image_opts: image names are lists of options.
        ended: ``quit`` was given.
        outstanding: the requests to the image that are not done.
    """

    def __init__(self, output: Output, *, image_opts: bool) -> None:
        self.output = output
        self.image_opts = image_opts
        self.ended = False
        self._node: BlockNode | None = None
        self._opening: Opening | None = None
        self.outstanding = Outstanding(None, output.text)

    @property
    def is_open(self) -> bool:
        """Whether there is an image."""
        return self._node is not None

    @property
    def node(self) -> BlockNode:
        """The open image."""
        assert self._node is not None
        return self._node

    def text(self, text: str) -> None:
        """Print as it is."""
        self.output.text(text)

    def flush(self) -> None:
        """Hand what was printed to the system."""
        self.output.flush()
        sys.stderr.flush()

    def open(self, opening: Opening) -> None:
        """Open an image.

        Raises:
            CommandError: one is open, or this one cannot be opened; it was reported.
        """
        if self._node is not None:
            self.output.error("file open already, try 'help close'")
            raise CommandError("")
        if opening.force_share and opening.options.get("force-share", "on") != "on":
            self.output.error("-U conflicts with image options")
            raise CommandError("")
        try:
            self._adopt(opening)
        except OSError as error:
            device = f" device {opening.filename}" if opening.filename is not None else ""
            hint = hint_of(error)
            self.output.error(f"can't open{device}: {full_reason(error)}", hint)
            raise CommandError("") from None

    def reopen(self, opening: Opening, changes: Mapping[str, str]) -> None:
        """Close the image and open it as ``opening`` says, with ``changes`` of its options.

        Raises:
            CommandError: it cannot be opened so, which was reported; it is open as before.
        """
        before = self.opening
        try:
            kept: Mapping[str, Any] = reopening.changed_options(self.node, before.options, changes)
            if opening.filename is None and not kept:
                kept = before.options
        except OSError as error:
            self.output.failed(error)
            raise CommandError("") from None
        self.close()
        try:
            self._adopt(opening._replace(options=kept))
        except OSError as error:
            self.output.failed(error)
            self.open(before)
            raise CommandError("") from None

    @property
    def opening(self) -> Opening:
        """How the image was opened."""
        assert self._opening is not None
        return self._opening

    def _adopt(self, opening: Opening) -> None:
        node = _open(opening)
        warn_of_guesses(self.output, node)
        self._node, self._opening = node, opening
        self.outstanding = Outstanding(exercise.debugger(node), self.text)

    def close(self) -> None:
        """Close the image, if there is one.

        Raises:
            CommandError: what was held back could not be written; it was reported.
        """
        self.outstanding.finish()
        node, self._node = self._node, None
        if node is None:
            return
        try:
            node.close()
        except OSError as error:
            words = full_reason(error)
            self.output.error(words if words.startswith("Failed to flush") else f"closing '{node.filename}': {words}")
            raise CommandError("") from None

    def timed(self, what: str, call: Callable[[], None]) -> float:
        """Run a request, before which others that are done have their say; returns the seconds it took.

        One that is outside the image has nothing to wait for, and leaves that to the next one.
        """
        start = time.monotonic()
        try:
            call()
        except OutOfRange as error:
            raise _failed(what, error) from None
        except OSError as error:
            self.outstanding.settle()
            raise _failed(what, error) from None
        seconds = time.monotonic() - start
        self.outstanding.settle()
        return seconds

    def require_writable(self) -> None:
        """Refuse to write what was opened for reading."""
        if self.node.read_only:
            self.output.error("Block node is read-only")
            raise CommandError("")


def timed(what: str, call: Callable[[], None]) -> float:
    """Run a request; returns the seconds it took."""
    start = time.monotonic()
    try:
        call()
    except OSError as error:
        raise _failed(what, error) from None
    return time.monotonic() - start


def _failed(what: str, error: OSError) -> CommandError:
    return CommandError(f"{what} failed: {reason(error)}")


def _open(opening: Opening) -> BlockNode:
    image: str | blockdev.Described
    options: dict[str, Any] = dict(opening.options)
    if opening.format is not None:
        options["driver"] = opening.format
    if options:
        if opening.filename is not None:
            options = blockdev.with_filename(options, opening.filename)
        image = blockdev.from_options(options)
    else:
        image = opening.filename or ""
    read_only = opening.read_only or opening.snapshot
    node = graph.open(image, read_only=read_only, force_share=opening.force_share, cache=opening.cache)
    if node.read_only and not read_only:
        node.close()
        raise ReadOnly("Block node is read-only")
    if opening.aio == "native" and not node.cache.direct:
        node.close()
        raise BlockError(
            "aio=native was specified, but it requires cache.direct=on, which was not specified.", errno=errno.EINVAL
        )
    if opening.snapshot:
        node = exercise.overlay(node, os.environ.get("TMPDIR", "/var/tmp"), read_only=opening.read_only)
    return exercise.copy_on_read(node) if opening.copy_on_read else node


def reason(error: OSError) -> str:
    """An errno's text: commands say no more, unless copies differ."""
    if isinstance(error, Mismatch):
        # Where copies differ is what one wants to know.
        return error.message
    code = errno.EIO if isinstance(error, OutOfRange) else error.errno or errno.EIO
    return os.strerror(code)
