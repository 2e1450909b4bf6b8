"""The daemon's NBD server, and the exports it offers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block import objects
from hostel.block.jobs.bitmaps import RecordingBitmap, find_bitmap, named_bitmap
from hostel.block.node import BlockNode
from hostel.block.permission import Permission
from hostel.block.tree import layers
from hostel.cli.storage_daemon.exports import Export
from hostel.cli.storage_daemon.monitor.parameter import check, generic, needed
from hostel.cli.storage_daemon.place import Place
from hostel.errors import NetworkError
from hostel.export.nbd.connection import NbdService, Security
from hostel.export.nbd.context import Bits
from hostel.export.nbd.export import NbdExport
from hostel.net import address
from hostel.net.server import Server
from hostel.wire.nbd.protocol import MAX_STRING

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

NOT_RUNNING: Final = "NBD server not running"
_END_TIMEOUT: Final = 70.0  # seconds for the thread to end, which waits for connections itself
_NODE_BITMAP: Final = (needed("node"), needed("name"))


class NbdServing:
    """A server that runs until it is closed, from the moment when the daemon serves.

    Args:
        place: where it listens.
        credentials: the id of TLS credentials.
        authorization: the id of who decides about clients.
        limit: clients at a time, 0 for any number.
        handshake_limit: seconds for a client's handshake, 0 for any number; None for QEMU's 10.
    """

    def __init__(
        self,
        daemon: Daemon,
        place: Place,
        *,
        credentials: str | None,
        authorization: str | None,
        limit: int,
        handshake_limit: int | None = None,
    ) -> None:
        listeners = place.listen()
        self._path = place.path()
        try:
            self.service = NbdService(
                [],
                security=_security(credentials, authorization),
                report=daemon.report,
                handshake_limit=handshake_limit,
            )
        except BaseException:
            for listener in listeners:
                listener.close()
            if self._path is not None:
                address.remove_unix(self._path)
            raise
        self._report = daemon.report
        self._server = Server(listeners, self.service.serve, limit=limit)
        self._thread = threading.Thread(target=self._run, name="nbd", daemon=True)
        if daemon.serving:
            self.start()

    def start(self) -> None:
        """Let clients in; those that came before have waited."""
        self._thread.start()

    def close(self) -> None:
        """Listen no more, and end all connections.

        Raises:
            NetworkError: they do not end.
        """
        if self._path is not None:
            address.remove_unix(self._path)
        self._server.stop()
        if self._thread.ident is None:  # it closes what it was given all the same
            self.start()
        self._thread.join(_END_TIMEOUT)
        if self._thread.is_alive():
            raise NetworkError("the NBD server does not end")

    def _run(self) -> None:
        try:
            self._server.run()
        except OSError as error:
            self._report(f"NBD server: {error}")


def _security(credentials: str | None, authorization: str | None) -> Security | None:
    if credentials is None:
        return None
    decider = None if authorization is None else objects.authorization(authorization)
    return Security(objects.tls_credentials(credentials, server=True), decider)


class NbdRunning(Export):
    """An export of the NBD server."""

    kind = "nbd"
    shared = Permission.ALL & ~Permission.RESIZE

    def start(self, daemon: Daemon, given: Mapping[str, Any]) -> None:
        """Offer it.

        Raises:
            QmpError: no server runs, or a name is wrong.
            BlockError: an export of this name is offered already, or a bitmap is inconsistent or in use.
        """
        if daemon.nbd is None:
            raise generic(NOT_RUNNING)
        name = given.get("name", given["node-name"])
        for what, text in (("name", name), ("description", given.get("description", ""))):
            if len(text.encode("utf-8", "surrogateescape")) > MAX_STRING:
                raise generic(f"export {what} '{text}' too long")
        self._bitmaps = [_bitmap(daemon, self.node, item, writable=self.writable) for item in given.get("bitmaps", ())]
        self._service = daemon.nbd.service
        self._export = NbdExport(
            self.root,
            name,
            description=given.get("description"),
            writable=self.writable,
            shared=True,
            allocation_depth=given.get("allocation-depth", False),
            bitmaps={bitmap.name: _bits(bitmap) for bitmap in self._bitmaps},
        )
        self._service.add(self._export)
        for bitmap in self._bitmaps:
            bitmap.hold(to_change=False)

    def stop(self) -> None:
        """See :class:`Export`."""
        try:
            self._service.remove(self._export)
        finally:
            for bitmap in self._bitmaps:
                bitmap.thaw()

    def is_used(self) -> bool:
        """See :class:`Export`."""
        return self._service.is_used(self._export)


def _bitmap(daemon: Daemon, node: BlockNode, item: Any, *, writable: bool) -> RecordingBitmap:
    """A bitmap by its name, of the first image of the chain that has it, or of the node that is named with it."""
    if isinstance(item, str):
        name = item
        found = ((each, named_bitmap(each, name)) for each in layers(node))
        holder, bitmap = next((pair for pair in found if pair[1] is not None), (node, None))
        if bitmap is None:
            raise generic(f"Bitmap '{name}' is not found")
        if bitmap.recording and not writable and not holder.read_only:
            # What others write would change it under a client that takes it for a state of the disk.
            raise generic(f"Enabled bitmap '{name}' incompatible with readonly export")
    else:
        if not isinstance(item, Mapping):
            raise generic("Invalid parameter type for 'bitmaps[0]', expected: BlockDirtyBitmapOrStr")
        checked = check(_NODE_BITMAP, item, path="bitmaps.")
        bitmap = find_bitmap(daemon.nodes.find(checked["node"]), checked["name"])
    bitmap.require_free()
    return bitmap


def _bits(bitmap: RecordingBitmap) -> Bits:
    """What clients see: of a bitmap that records, its bits at each moment."""
    bits = bitmap.bits
    return bitmap if bitmap.recording else bits
