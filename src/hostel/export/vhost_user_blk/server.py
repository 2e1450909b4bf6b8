"""Waiting for front ends, one after the other: who comes back after a crash finds the device again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence

from hostel.block.node import BlockNode
from hostel.errors import RemoteProtocolError, UnsupportedFeature
from hostel.export.vhost_user_blk.connection import Connection
from hostel.export.vhost_user_blk.device import BlkDevice
from hostel.net.server import Server
from hostel.wire.virtio import ring


class VhostUserBlk:
    """A node served as a vhost-user-blk device.

    Args:
        node: the image, which stays its owner's to close.
        writable: the guest may write.
        block_size: bytes of a logical block.
        queues: how many queues there are.
        report: told in one line why a front end was dropped, or what is broken.

    Raises:
        UnsupportedFeature: this host keeps its numbers the other way round.
    """

    def __init__(
        self, node: BlockNode, *, writable: bool, block_size: int, queues: int, report: Callable[[str], None]
    ) -> None:
        if not ring.SUPPORTED:
            raise UnsupportedFeature("vhost-user-blk exports need a little-endian host")
        self.device = BlkDevice(node, writable=writable, block_size=block_size, queues=queues)
        self._report = report
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def server(self, listeners: Sequence[socket.socket]) -> Server:
        """A server for it, one front end at a time."""
        return Server(listeners, self.serve, limit=1)

    def serve(self, sock: socket.socket) -> bool:
        """Serve a front end to its end; for :class:`hostel.net.server.Server`."""
        try:
            connection = Connection(sock, self.device, self._report)
            with self._lock:
                self._connection = connection
            connection.run()
        except (RemoteProtocolError, OSError) as error:
            self._report(f"vhost-user-blk: front end dropped: {error}")
        except Exception as error:
            # A mistake of ours must not take the other exports with it.
            self._report(f"vhost-user-blk: front end dropped: internal error: {type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._connection = None
            sock.close()
        return True

    def resized(self) -> None:
        """Take the node's size anew, and let the guest see it where it is another one; any thread may call it."""
        with self._lock:
            if self.device.resized() and self._connection is not None:
                self._connection.config_changed()
