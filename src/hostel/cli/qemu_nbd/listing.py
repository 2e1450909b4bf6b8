"""``qemu-nbd -L``: what a server exports."""

from __future__ import annotations

from hostel.block.protocols.nbd.connection import Security, negotiate
from hostel.cli.qemu.output import Output
from hostel.net.address import Address
from hostel.wire.nbd.client import ClientHandshake, Export, Listed
from hostel.wire.nbd.protocol import ExportFlag

# As QEMU shows them, in the order of their bits.
_FLAGS = {
    ExportFlag.READ_ONLY: "readonly",
    ExportFlag.SEND_FLUSH: "flush",
    ExportFlag.SEND_FUA: "fua",
    ExportFlag.ROTATIONAL: "rotational",
    ExportFlag.SEND_TRIM: "trim",
    ExportFlag.SEND_WRITE_ZEROES: "zeroes",
    ExportFlag.SEND_DF: "df",
    ExportFlag.CAN_MULTI_CONN: "multi",
    ExportFlag.SEND_RESIZE: "resize",
    ExportFlag.SEND_CACHE: "cache",
    ExportFlag.SEND_FAST_ZERO: "fast-zero",
}


def list_exports(output: Output, address: Address, security: Security | None) -> None:
    """Ask a server and print what it says.

    Raises:
        NetworkError: the server cannot be reached, or is not who it should be.
        RemoteProtocolError: it refused, or broke the protocol.
    """
    transport, event = negotiate(address, ClientHandshake(listing=True, tls=security is not None), security)
    transport.close()
    assert isinstance(event, Listed)
    output.line(f"exports available: {len(event.exports)}")
    for export in event.exports:
        _show(output, export)


def _show(output: Output, export: Export) -> None:
    output.line(f" export: '{export.name}'")
    if export.description:
        output.line(f"  description: {export.description}")
    if export.flags & ExportFlag.HAS_FLAGS:
        names = "".join(f" {name}" for flag, name in _FLAGS.items() if export.flags & flag)
        output.line(f"  size:  {export.size}")
        output.line(f"  flags: 0x{export.flags:x} ({names} )")
    if export.minimum:
        output.line(f"  min block: {export.minimum}")
        output.line(f"  opt block: {export.preferred}")
        output.line(f"  max block: {export.maximum}")
    if export.contexts:
        output.line(f"  available meta contexts: {len(export.contexts)}")
        for _, name in export.contexts:
            output.line(f"   {name}")
