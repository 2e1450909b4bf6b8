"""A protocol's name in a format's place, as ``-f file`` and ``-O host_device`` have it: bytes without a format."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from hostel.block import creating, graph, registry
from hostel.block.driver import Cache
from hostel.block.formats.raw import RawDriver
from hostel.block.node import BlockNode
from hostel.block.options import Options, Value
from hostel.block.protocol import Creation, ProtocolDriver
from hostel.block.protocols.file import FileDriver
from hostel.block.protocols.host_device import HostDeviceDriver
from hostel.errors import BlockError, UnsupportedFeature
from hostel.units import SECTOR


class Unformatted:
    """What can be made of a protocol's bytes.

    Args:
        protocol: one of :data:`hostel.block.registry.FILES` or ``PROTOCOLS``.

    Raises:
        UnsupportedFeature: nothing can be made with it.
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        if protocol == FileDriver.name:
            self.create_options: Options = FileDriver.create_options
        elif protocol in registry.FILES:
            self.create_options = ProtocolDriver.create_options
        else:
            found = registry.protocol_driver(protocol)
            if found.creation is Creation.NONE:
                raise UnsupportedFeature(f"Format driver '{protocol}' does not support image creation")
            self.create_options = found.create_options

    def check_creation(self, size: int, options: Mapping[str, Value]) -> None:
        """Refuse what raw images cannot be."""
        RawDriver.check_creation(size, options)

    def create(self, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Give the file its size; a device has one of its own, and its first sector is emptied.

        Raises:
            BlockError: the host refuses, or the device is smaller.
        """
        if not isinstance(file.driver, HostDeviceDriver):
            RawDriver.create(file, size, options)
        elif size > file.length:
            raise BlockError("Cannot grow device files", errno=errno.EINVAL)
        else:
            file.write_zeroes(0, min(SECTOR, size))

    def prepare(self, filename: str, cache: Cache, options: Mapping[str, Value]) -> BlockNode:
        """What is laid out: a new file, or what the name leads to.

        Raises:
            BlockError: the name is none of the protocol's, or the host refuses.
        """
        try:
            if self.protocol in registry.PROTOCOLS and registry.protocol_name(filename) != self.protocol:
                registry.protocol_driver(self.protocol).parse_filename(filename)
            if self.protocol in registry.FILES and self.protocol != FileDriver.name:
                return graph.open(filename, self.protocol, read_only=False, cache=cache)
        except BlockError as error:
            if self.protocol in registry.FILES or registry.protocol_driver(self.protocol).creation is Creation.IN_PLACE:
                error.message = (
                    f"Protocol driver '{self.protocol}' does not support image creation, and opening the image failed: "
                    f"{error.message}"
                )
            raise
        if self.protocol == FileDriver.name and registry.protocol_name(filename) == FileDriver.name:
            filename = f"file:{filename.removeprefix('file:')}"
        return creating.create(filename, cache=cache, options=options)
