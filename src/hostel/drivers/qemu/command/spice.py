"""SPICE servers (``qemuBuildGraphicsSPICECommandLine``)."""

from __future__ import annotations

from typing import Final

from hostel.drivers.qemu.command.context import Context, escape
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.graphics import Graphics, Listen

_PORT: Final = 5901  # where a command line that nobody starts listens, and libvirt's does


def spice(device: Graphics, context: Context) -> str:
    """The ``-spice`` of a screen; its password is told to QEMU once it runs, and nobody gets in before.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it asks for TLS, OpenGL, or to listen in another way.
    """
    _refuse_tls(device)
    if device.gl is not None and device.gl.enable:
        raise unsupported("<gl enable='yes'/> of SPICE; write <gl enable='no'/>")
    words = _listen(device, context)
    if device.mouse is not None:
        words.append(f"agent-mouse={'on' if device.mouse == 'client' else 'off'}")
    if not device.passwd:
        words.append("disable-ticketing=on")
    if device.default_mode == "insecure":
        words.append("plaintext-channel=default")
    words += [f"plaintext-channel={channel.name}" for channel in device.channels if channel.mode == "insecure"]
    playback = device.playback_compression
    given = (
        ("image-compression", device.image_compression),
        ("jpeg-wan-compression", device.jpeg_compression),
        ("zlib-glz-wan-compression", device.zlib_compression),
        ("playback-compression", None if playback is None else "on" if playback else "off"),
        ("streaming-video", device.streaming),
        ("disable-copy-paste", "on" if device.clipboard is False else None),
        ("disable-agent-file-xfer", "on" if device.file_transfer is False else None),
    )
    words += [f"{name}={value}" for name, value in given if value is not None]
    return ",".join([*words, "seamless-migration=on"])


def _listen(device: Graphics, context: Context) -> list[str]:
    if len(device.listens) > 1:
        raise unsupported("more than one <listen> of a SPICE server; write one")
    listen = device.listens[0] if device.listens else Listen(type="address")
    if listen.type == "socket":
        listen.socket = listen.socket or str(context.monitor.parent / "spice")
        return ["unix=on", f"addr={escape(listen.socket)}"]
    if listen.type == "none":
        return ["port=0"]
    if listen.type != "address":
        raise unsupported(f"<listen type='{listen.type}'>; write type='address' or type='socket'")
    address = device.listen = listen.address = listen.address or device.listen or "127.0.0.1"
    port = device.port if device.port is not None and device.port > 0 else _PORT
    return [f"port={port}", f"addr={escape(address)}"]


def _refuse_tls(device: Graphics) -> None:
    """Refuse what nobody could connect to: this driver configures no certificates for SPICE."""
    if (device.tls_port or 0) > 0 or (device.tls_port == -1 and not device.autoport):
        raise unsupported("spice TLS port set in XML configuration, but TLS of SPICE is not supported; drop tlsPort")
    if device.default_mode == "secure":
        raise unsupported(
            "spice defaultMode secure requested in XML configuration, but TLS connection is not available"
        )
    if any(channel.mode == "secure" for channel in device.channels):
        raise unsupported("spice secure channels set in XML configuration, but TLS connection is not available")
