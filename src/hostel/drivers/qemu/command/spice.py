"""SPICE servers (``qemuBuildGraphicsSPICECommandLine``)."""

from __future__ import annotations

from typing import Final

from hostel.drivers.qemu.command.context import Context, escape
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.settings import ScreenSettings
from hostel.model.domain.devices.graphics import Graphics, Listen

_PORT: Final = 5901  # where a command line that nobody starts listens, and libvirt's does
_TLS_PORT: Final = 5902
_MODES: Final = {"secure": "tls-channel", "insecure": "plaintext-channel"}


def spice(device: Graphics, context: Context) -> str:
    """The ``-spice`` of a screen; its password is told to QEMU once it runs, and nobody gets in before.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it asks for a way to connect that there is not.
    """
    settings = context.settings.spice
    words = _listen(device, context)
    is_secure = any(word.startswith("tls-port=") for word in words)
    _check_modes(device, is_secure=is_secure, is_plain=any(word.startswith(("unix=", "port=")) for word in words))
    if settings.sasl:
        words.append("sasl=on")
    if device.mouse is not None:
        words.append(f"agent-mouse={'on' if device.mouse == 'client' else 'off'}")
    if device.passwd is None and settings.password is None:
        words.append("disable-ticketing=on")
    if is_secure:
        words.append(f"x509-dir={escape(settings.certificates)}")
    modes = [("default", device.default_mode), *((channel.name, channel.mode) for channel in device.channels)]
    words += [f"{_MODES[mode]}={name}" for name, mode in modes if mode in _MODES]
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
    if device.gl is not None and device.gl.enable:
        words.append("gl=on")
        words += [f"rendernode={escape(device.gl.rendernode)}"] if device.gl.rendernode is not None else []
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
    address = device.listen = listen.address = listen.address or device.listen or context.settings.spice.listen
    plain, encrypted = needed_ports(device, context.settings.spice)
    ports = (("port", plain, device.port, _PORT), ("tls-port", encrypted, device.tls_port, _TLS_PORT))
    words = []
    for name, is_chosen, port, usual in ports:
        if (number := port if port is not None and port > 0 else usual if is_chosen else 0) > 0:
            words.append(f"{name}={number}")
    return [*words, f"addr={escape(address)}"] if words else []


def needed_ports(device: Graphics, settings: ScreenSettings) -> tuple[bool, bool]:
    """Whether a port is chosen when the machine starts: one for who speaks plainly, and one for TLS.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it is to have one for TLS, and TLS is not configured.
    """
    plain, encrypted = device.port == -1, device.tls_port == -1
    if device.autoport:
        mode = device.default_mode or "any"
        modes = {mode, *(channel.mode for channel in device.channels if channel.mode != "any")}
        plain = "insecure" in modes or mode == "any"
        encrypted = "secure" in modes or (mode == "any" and settings.tls)
    elif (device.tls_port or 0) > 0 and not settings.tls:
        raise unsupported("spice TLS port set in XML configuration, but TLS is disabled in qemu.conf")
    if encrypted and not settings.tls:
        raise unsupported("Auto allocation of spice TLS port requested but spice TLS is disabled in qemu.conf")
    return plain, encrypted


def _check_modes(device: Graphics, *, is_secure: bool, is_plain: bool) -> None:
    """Refuse what nobody could connect to."""
    for mode, is_there, way in (("secure", is_secure, "TLS"), ("insecure", is_plain, "plaintext")):
        if is_there:
            continue
        if device.default_mode == mode:
            asked = f"spice defaultMode {mode} requested in XML configuration"
            raise unsupported(f"{asked}, but {way} connection is not available")
        if any(channel.mode == mode for channel in device.channels):
            asked = f"spice {mode} channels set in XML configuration"
            raise unsupported(f"{asked}, but {way} connection is not available")
