"""Screens: VNC and SPICE servers, and graphics cards; sound cards and what they play on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hostel.drivers.qemu.command.context import Context, alias_of, escape, option
from hostel.drivers.qemu.command.objects import Needed, secret
from hostel.drivers.qemu.command.place import place, virtio
from hostel.drivers.qemu.command.spice import spice
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.settings import ScreenSettings, Settings
from hostel.model.authentication import SecretReference
from hostel.model.domain.devices.graphics import Graphics, GraphicsType, Listen
from hostel.model.domain.devices.sound import Audio, Sound
from hostel.model.domain.devices.video import VideoModel
from hostel.model.domain.domain import Domain

VNC_ID: Final = "vnc"
_VNC_CREDENTIALS: Final = "vnc-tls-creds0"
_VNC_PASSPHRASE: Final = f"{_VNC_CREDENTIALS}-secret0"
_VNC_FIRST: Final = 5900
_VNC_LAST: Final = 65535
# A card with VGA inside for the first screen, and the one for further screens.
VIDEO: Final = {
    "vga": ("VGA", "secondary-vga"),
    "cirrus": ("cirrus-vga", None),
    "vmvga": ("vmware-svga", None),
    "qxl": ("qxl-vga", "qxl"),
    "virtio": ("virtio-vga", "virtio-gpu-pci"),
    "bochs": ("bochs-display", "bochs-display"),
    "ramfb": ("ramfb", None),
}
_SOUND: Final = {
    "ac97": "AC97",
    "es1370": "ES1370",
    "sb16": "sb16",
    "usb": "usb-audio",
    "ich6": "intel-hda",
    "ich9": "ich9-intel-hda",
}
_CODECS: Final = {"duplex": "hda-duplex", "micro": "hda-micro", "output": "hda-output"}


def graphics(domain: Domain, context: Context) -> list[str]:
    """VNC servers, and those of SPICE. Where a port of VNC is automatic, QEMU itself takes the first that is free.

    It begins with the one that :func:`hostel.drivers.qemu.screens.reserve` found. The live document gets the port once
    QEMU runs; it asks by the server's id, which is its place in the document. SPICE has no such choice.
    """
    argv: list[str] = []
    if any(device.type == GraphicsType.VNC for device in domain.devices.graphics):
        argv += _vnc_credentials(context)
    for index, device in enumerate(domain.devices.graphics):
        keys = ["-k", device.keymap] if device.keymap is not None else []
        if device.type == GraphicsType.SPICE and context.has_spice:
            argv += ["-spice", spice(device, context), *keys]
            continue
        if device.type != GraphicsType.VNC:
            raise unsupported(f"graphics type='{device.type}'; write vnc{' or spice' if context.has_spice else ''}")
        words = f"{_vnc(device, context)},id={VNC_ID}{index}{_vnc_options(domain, device, context.settings.vnc)}"
        argv += ["-vnc", words, *keys]
    return argv


def secrets(domain: Domain, settings: Settings) -> Iterator[Needed]:
    """The passphrase of the key that VNC servers have."""
    has_vnc = any(device.type == GraphicsType.VNC for device in domain.devices.graphics)
    if has_vnc and settings.vnc.tls and settings.vnc.secret:
        yield Needed(_VNC_PASSPHRASE, SecretReference(uuid=settings.vnc.secret), "tls")


def _vnc_credentials(context: Context) -> list[str]:
    """What all VNC servers of a machine have for TLS."""
    settings = context.settings.vnc
    if not settings.tls:
        return []
    spec = {"qom-type": "tls-creds-x509", "id": _VNC_CREDENTIALS, "dir": settings.certificates, "endpoint": "server"}
    passphrase = _VNC_PASSPHRASE if settings.secret else None
    found = option("-object", {**spec, "verify-peer": settings.verify, "passwordid": passphrase})
    return [*(secret(_VNC_PASSPHRASE, context) if passphrase else []), *found]


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
        return f"{host}:{first - _VNC_FIRST},to={_VNC_LAST - _VNC_FIRST}"
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
    audio = audio_of(domain, device.audio)
    return f"{text},audiodev=audio{audio}" if audio is not None else text


def audio_of(domain: Domain, wanted: int | None) -> int | None:
    """The number of the audio back end that a device uses; None when the document has none."""
    if wanted is not None:
        return wanted
    return domain.devices.audios[0].id if domain.devices.audios else None


def audio(domain: Domain) -> list[str]:
    """Audio back ends, before what plays on them."""
    argv: list[str] = []
    for backend in domain.devices.audios:
        argv += option("-audiodev", {"id": f"audio{backend.id}", **_audio(backend)})
    return argv


def _audio(backend: Audio) -> dict[str, Any]:
    if backend.type not in ("none", "file", "spice"):
        raise unsupported(f"audio type='{backend.type}'; write none, file or spice")
    if backend.type == "file":
        return {"driver": "wav", "path": backend.path}
    return {"driver": backend.type}


def sounds(domain: Domain) -> list[str]:
    """Sound cards, with the codecs of those that have them."""
    argv: list[str] = []
    for sound in domain.devices.sounds:
        name, number = alias_of(sound), audio_of(domain, sound.audio)
        driver = _SOUND.get(sound.model)
        if driver is None:
            raise unsupported(f"sound model='{sound.model}'; write one of {', '.join(_SOUND)}")
        has_codecs = sound.model in ("ich6", "ich9")
        audiodev = None if has_codecs or number is None else f"audio{number}"
        argv += option("-device", {"driver": driver, "id": name, "audiodev": audiodev, **place(domain, sound)})
        if has_codecs:
            argv += _codecs(sound, name, number)
    return argv


def _codecs(sound: Sound, name: str, number: int | None) -> list[str]:
    argv: list[str] = []
    for index, codec in enumerate(sound.codecs or ["duplex"]):
        spec = {"driver": _CODECS[codec], "id": f"{name}-codec{index}", "bus": f"{name}.0", "cad": index}
        argv += option("-device", {**spec, "audiodev": None if number is None else f"audio{number}"})
    return argv


def videos(domain: Domain) -> list[str]:
    """Graphics cards."""
    argv: list[str] = []
    for video in domain.devices.videos:
        model = video.model or VideoModel(type="vga")
        if model.type == "none":
            continue
        drivers = VIDEO.get(model.type, (None, None))
        driver = drivers[0] if model.primary else drivers[1]
        if driver is None:
            use = "" if model.primary else "for a second screen "
            raise unsupported(f"video model type='{model.type}' {use}is not QEMU's; write one of {', '.join(VIDEO)}")
        argv += option(
            "-device",
            {"driver": driver, "id": alias_of(video), **virtio(video.driver), **_memory(model), **place(domain, video)},
        )
    return argv


def _memory(model: VideoModel) -> dict[str, Any]:
    """Sizes, in the unit that each card wants them in."""
    if model.type == "qxl":
        return {
            "max_outputs": model.heads,
            "ram_size": None if model.ram is None else model.ram * 1024,
            "vram_size": None if model.vram is None else model.vram * 1024,
            "vram64_size_mb": (model.vram64 or 0) // 1024,
            "vgamem_mb": None if model.vgamem is None else model.vgamem // 1024,
        }
    if model.type == "virtio":
        return {"max_outputs": model.heads, **_resolution(model)}
    if model.vram and model.type in ("vga", "vmvga"):
        return {"vgamem_mb": model.vram // 1024, **_resolution(model)}
    if model.vram and model.type == "bochs":
        return {"vgamem": model.vram * 1024, **_resolution(model)}
    return {}


def _resolution(model: VideoModel) -> dict[str, Any]:
    return {} if model.resolution is None else {"xres": model.resolution.x, "yres": model.resolution.y}
