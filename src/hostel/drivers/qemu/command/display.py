"""Screens: servers of VNC and SPICE, windows, what only draws; and graphics cards."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command import audio
from hostel.drivers.qemu.command.context import Context, alias_of, escape, option
from hostel.drivers.qemu.command.objects import with_passphrase
from hostel.drivers.qemu.command.place import place, virtio, virtio_name, zpci
from hostel.drivers.qemu.command.spice import spice
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.settings import ScreenSettings
from hostel.model.domain.devices.graphics import Gl, Graphics, GraphicsType, Listen
from hostel.model.domain.devices.video import Video, VideoModel
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import PPC64, X86, arch_of

VNC_ID: Final = "vnc"
_VNC_CREDENTIALS: Final = "vnc-tls-creds0"
_VNC_FIRST: Final = 5900
_VNC_LAST: Final = 65535
# A card with VGA inside for the first screen, and the one for further screens.
VIDEO: Final[dict[str, tuple[str, str | None]]] = {
    "vga": ("VGA", "secondary-vga"),
    "cirrus": ("cirrus-vga", None),
    "vmvga": ("vmware-svga", None),
    "qxl": ("qxl-vga", "qxl"),
    "virtio": ("virtio-vga", "virtio-gpu-pci"),
    "bochs": ("bochs-display", "bochs-display"),
    "ramfb": ("ramfb", None),
}
_WITH_VGA: Final = (*X86, *PPC64)
_DISPLAYS: Final = (GraphicsType.SDL, GraphicsType.EGL_HEADLESS, GraphicsType.DBUS)


def graphics(domain: Domain, context: Context) -> list[str]:
    """VNC servers, and those of SPICE. Where a port of VNC is automatic, QEMU itself takes the first that is free.

    It begins with the one that :func:`hostel.drivers.qemu.screens.reserve` found. The live document gets the port once
    QEMU runs; it asks by the server's id, which is its place in the document. SPICE has no such choice.
    """
    devices = domain.devices.graphics
    argv = [] if any(device.type in _DISPLAYS for device in devices) else ["-display", "none"]
    if any(device.type == GraphicsType.VNC for device in devices):
        argv += _vnc_credentials(context)
    for index, device in enumerate(devices):
        keys = ["-k", device.keymap] if device.keymap is not None else []
        if device.type in _DISPLAYS:
            argv += [*(["-full-screen"] if device.fullscreen else []), "-display", _display(device)]
        elif device.type == GraphicsType.SPICE and context.has_spice:
            argv += ["-spice", spice(device, context), *keys]
        elif device.type == GraphicsType.VNC:
            words = f"{_vnc(device, context)},id={VNC_ID}{index}{_vnc_options(domain, device, context.settings.vnc)}"
            argv += ["-vnc", words, *keys]
        else:
            there = ["vnc", *(["spice"] if context.has_spice else []), *map(str, _DISPLAYS)]
            raise unsupported(f"graphics type='{device.type}'; write one of {', '.join(there)}")
    return argv


def _display(device: Graphics) -> str:
    """What QEMU draws with, for a window, for programs on D-Bus, or for other servers of the machine's."""
    words = [str(device.type)]
    gl = device.gl or Gl()
    if device.type == GraphicsType.DBUS:
        words.append("p2p=on" if device.p2p else f"addr={escape(device.address or '')}")
    if device.type != GraphicsType.EGL_HEADLESS and gl.enable is not None:
        words.append(f"gl={'on' if gl.enable else 'off'}")
    if gl.rendernode is not None:
        words.append(f"rendernode={escape(gl.rendernode)}")
    if device.type == GraphicsType.DBUS and device.audio is not None:
        words.append(f"audiodev=audio{device.audio}")
    return ",".join(words)


def _vnc_credentials(context: Context) -> list[str]:
    """What all VNC servers of a machine have for TLS."""
    settings = context.settings.vnc
    if not settings.tls:
        return []
    spec = {"qom-type": "tls-creds-x509", "id": _VNC_CREDENTIALS, "dir": settings.certificates, "endpoint": "server"}
    return with_passphrase({**spec, "verify-peer": settings.verify}, settings.secret, context)


def _vnc(device: Graphics, context: Context) -> str:
    """Where a server listens."""
    if len(device.listens) > 1:
        raise unsupported("more than one <listen> of a VNC server; write one")
    listen = device.listens[0] if device.listens else Listen(type="address")
    if listen.type == "socket":
        device.socket = listen.socket = listen.socket or str(context.monitor.parent / "vnc")
        return f"unix:{escape(listen.socket)}"
    if listen.type == "none":
        return "none"
    address = device.listen = listen.address = listen.address or device.listen or context.settings.vnc.listen
    host = escape(f"[{address}]" if ":" in address else address)
    if device.is_automatic or device.port is None:
        first = max(device.port or 0, _VNC_FIRST)
        return f"{host}:{first - _VNC_FIRST},to={context.settings.ports[1] - _VNC_FIRST}"
    if not _VNC_FIRST <= device.port <= _VNC_LAST:
        raise unsupported(f"graphics port='{device.port}': VNC ports are {_VNC_FIRST} to {_VNC_LAST}")
    return f"{host}:{device.port - _VNC_FIRST}"


def _vnc_options(domain: Domain, device: Graphics, settings: ScreenSettings) -> str:
    text = ""
    if device.websocket:
        text += f",websocket={'on' if device.websocket == -1 else device.websocket}"
    if device.passwd is not None or settings.password is not None:
        text += ",password=on"
    if settings.tls:
        text += f",tls-creds={_VNC_CREDENTIALS}"
    if settings.sasl:
        text += ",sasl=on"
    if device.share_policy is not None:
        text += f",share={device.share_policy}"
    if device.power_control is not None:
        text += f",power-control={'on' if device.power_control else 'off'}"
    number = audio.number_of(domain, device.audio)
    return f"{text},audiodev=audio{number}" if number is not None else text


def videos(domain: Domain, context: Context) -> list[str]:
    """Graphics cards, after the sockets of programs that draw for them."""
    argv: list[str] = []
    for video in domain.devices.videos:
        model = video.model or VideoModel(type="vga")
        if model.type == "none":
            continue
        driver = _driver(domain, video, model)
        if driver is None:
            use = "" if model.primary else "for a second screen "
            raise unsupported(f"video model type='{model.type}' {use}is not QEMU's; write one of {', '.join(VIDEO)}")
        argv += _served(video, context)
        ends = {"chardev": served_by(video)} if is_served(video) else {}
        own = virtio(video.driver) if driver != "vhost-user-vga" else {}
        spec = {"driver": driver, "id": alias_of(video), **own, **_memory(model), **ends}
        argv += [*zpci(video), *option("-device", {**spec, **place(domain, video)})]
    return argv


def is_served(video: Video) -> bool:
    """Whether a program of its own draws for a card, and not QEMU."""
    return video.driver is not None and video.driver.name == "vhostuser"


def served_by(video: Video) -> str:
    """What the end of that program's socket is called."""
    return f"chr-vu-{alias_of(video)}"


def socket_name(video: Video) -> str:
    """What that program's socket is called where QEMU has its own."""
    return f"{alias_of(video)}-gpu.sock"


def _served(video: Video, context: Context) -> list[str]:
    if not is_served(video):
        return []
    path = context.monitor.with_name(socket_name(video))
    return ["-chardev", f"socket,id={served_by(video)},path={escape(str(path))}"]


def _driver(domain: Domain, video: Video, model: VideoModel) -> str | None:
    """What QEMU calls a card: one with VGA inside for the first screen, where the architecture has such a thing."""
    if model.type != "virtio":
        first, further = VIDEO.get(model.type, (None, None))
        return first if model.primary else further
    is_accelerated = model.acceleration is not None and model.acceleration.accel3d
    if model.primary and arch_of(domain) in _WITH_VGA:
        return "vhost-user-vga" if is_served(video) else "virtio-vga-gl" if is_accelerated else "virtio-vga"
    base = "vhost-user-gpu" if is_served(video) else "virtio-gpu-gl" if is_accelerated else "virtio-gpu"
    return virtio_name(base, video, None)


def _memory(model: VideoModel) -> dict[str, Any]:
    """Sizes, in the unit that each card wants them in."""
    if model.type == "qxl":
        return {
            "max_outputs": model.heads,
            "ram_size": None if model.ram is None else model.ram * 1024,
            "vram_size": None if model.vram is None else model.vram * 1024,
            "vram64_size_mb": (model.vram64 or 0) // 1024,
            "vgamem_mb": None if model.vgamem is None else model.vgamem // 1024,
            **_resolution(model),
        }
    if model.type == "virtio":
        return {"max_outputs": model.heads, "blob": model.blob, **_resolution(model)}
    if model.vram and model.type in ("vga", "vmvga"):
        return {"vgamem_mb": model.vram // 1024, **_resolution(model)}
    if model.vram and model.type == "bochs":
        return {"vgamem": model.vram * 1024, **_resolution(model)}
    return {}


def _resolution(model: VideoModel) -> dict[str, Any]:
    return {} if model.resolution is None else {"xres": model.resolution.x, "yres": model.resolution.y}
