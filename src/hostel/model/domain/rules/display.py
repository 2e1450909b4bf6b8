"""Rules for screens (``virDomainVideoDefValidate``, ``qemuValidateDomainDeviceDefGraphics``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.devices.video import Video, VideoDriver, VideoModel
from hostel.model.domain.rules.rule import MachineRule, Rule, without_virtio_options

GRAPHICS_RULES: Final[tuple[Rule[Graphics], ...]] = (
    Rule(
        lambda item: any(listen.network and listen.type != "network" for listen in item.listens),
        lambda _: "'network' attribute is valid only for listen type 'network'",
        ErrorCode.XML_ERROR,
        "/listen/@network",
    ),
    Rule(
        lambda item: any(listen.type == "network" and not listen.network for listen in item.listens),
        lambda _: "'network' attribute is required for listen type 'network'",
        ErrorCode.XML_ERROR,
        "/listen",
    ),
    Rule(
        lambda item: (
            item.type not in (GraphicsType.VNC, GraphicsType.SPICE)
            and any(listen.type in ("socket", "none") for listen in item.listens)
        ),
        lambda item: f"listen type '{item.listens[0].type}' is not available for graphics type '{item.type}'",
        below="/listen/@type",
    ),
)


def _model(video: Video) -> VideoModel:
    return video.model or VideoModel(type="default")


def _driver(video: Video) -> VideoDriver:
    return video.driver or VideoDriver()


VIDEO_RULES: Final[tuple[MachineRule[Video], ...]] = (
    MachineRule(
        lambda video, machine: (
            len(machine.domain.devices.videos) > 1
            and any(_model(item).type == "none" for item in machine.domain.devices.videos)
        ),
        "a 'none' video type must be the only video device defined for the domain",
        "/model/@type",
    ),
    MachineRule(
        lambda video, _: _driver(video).name == "vhostuser" and _model(video).type != "virtio",
        "'vhostuser' driver is only supported with 'virtio' device",
        "/driver/@name",
    ),
    MachineRule(
        lambda video, _: (
            _driver(video).name != "vhostuser"
            and _model(video).acceleration is not None
            and getattr(_model(video).acceleration, "rendernode", None)
        ),
        "unsupported rendernode accel attribute without 'vhostuser'",
        "/model/acceleration/@rendernode",
    ),
    *(
        MachineRule(
            lambda video, _, name=name: _model(video).type != "qxl" and getattr(_model(video), name),  # type: ignore[misc]
            f"{name} attribute only supported for video type qxl",
            f"/model/@{name}",
        )
        for name in ("ram", "vram64", "vgamem")
    ),
    MachineRule(
        lambda video, _: _model(video).type == "ramfb" and video.address is not None,
        "address not supported for video type ramfb",
        "/address",
    ),
)
VIDEO_OPTION_RULES: Final[tuple[Rule[Video], ...]] = without_virtio_options(
    _driver, lambda video: _model(video).type == "virtio"
)

_ANYWHERE: Final = ("qxl", "virtio")

QEMU_VIDEO_RULES: Final[tuple[MachineRule[Video], ...]] = (
    MachineRule(
        lambda video, _: _model(video).type == "default",
        "missing video model and cannot determine default",
        "/model/@type",
        ErrorCode.INTERNAL_ERROR,
    ),
    MachineRule(
        lambda video, _: _model(video).type not in (*_ANYWHERE, "none") and not _model(video).primary,
        lambda video, _: f"video type '{_model(video).type}' is only valid as primary video device",
        "/model/@primary",
    ),
    MachineRule(
        lambda video, _: _model(video).type not in (*_ANYWHERE, "none") and _model(video).heads not in (None, 1),
        lambda video, _: f"video type '{_model(video).type}' doesn't support multiple 'heads'",
        "/model/@heads",
    ),
    MachineRule(
        lambda video, _: getattr(_model(video).acceleration, "accel2d", None),
        "qemu does not support the accel2d setting",
        "/model/acceleration/@accel2d",
    ),
    MachineRule(
        lambda video, _: _model(video).type == "qxl" and 0 < (_model(video).vgamem or 0) < 1024,
        "value for 'vgamem' must be at least 1 MiB (1024 KiB)",
        "/model/@vgamem",
    ),
    MachineRule(
        lambda video, _: _model(video).type == "qxl" and (_model(video).vgamem or 1).bit_count() != 1,
        "value for 'vgamem' must be power of two",
        "/model/@vgamem",
    ),
    MachineRule(
        lambda video, _: (
            _model(video).resolution is not None and _model(video).type not in ("vga", "qxl", "virtio", "bochs")
        ),
        "model resolution is not supported",
        "/model/resolution",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda video, _: _model(video).type in ("vga", "vmvga") and 0 < (_model(video).vram or 0) < 1024,
        "value for 'vram' must be at least 1 MiB (1024 KiB)",
        "/model/@vram",
    ),
    MachineRule(
        lambda video, _: (
            _driver(video).name != "vhostuser"
            and getattr(_model(video).acceleration, "accel3d", None)
            and _model(video).type != "virtio"
        ),
        "3d acceleration is supported only with 'virtio' video device",
        "/model/acceleration/@accel3d",
    ),
)

QEMU_GRAPHICS_RULES: Final[tuple[MachineRule[Graphics], ...]] = (
    MachineRule(
        lambda item, machine: (
            any(other.type == GraphicsType.EGL_HEADLESS for other in machine.domain.devices.graphics)
            and item.type not in (GraphicsType.EGL_HEADLESS, GraphicsType.VNC, GraphicsType.SPICE)
        ),
        "graphics type 'egl-headless' is only supported with one of: 'vnc', 'spice' graphics types",
        "/@type",
    ),
    MachineRule(
        lambda item, machine: (
            any(other.type == GraphicsType.EGL_HEADLESS for other in machine.domain.devices.graphics)
            and item.type == GraphicsType.SPICE
            and item.gl is not None
            and item.gl.enable
        ),
        "multiple OpenGL displays are not supported by QEMU",
        "/gl/@enable",
    ),
    MachineRule(
        lambda item, _: item.type in (GraphicsType.RDP, GraphicsType.DESKTOP),
        lambda item, _: f"{item.type} graphics are not supported with this QEMU",
        "/@type",
    ),
    MachineRule(
        lambda item, _: item.type == GraphicsType.VNC and len(item.passwd or "") > 8,
        lambda item, _: f"VNC password is {len(item.passwd or '')} characters long, only 8 permitted",
        "/@passwd",
    ),
    MachineRule(
        lambda item, _: item.type == GraphicsType.DBUS and item.p2p and item.address,
        "D-Bus p2p with an address is not supported",
        "/@address",
        ErrorCode.XML_ERROR,
    ),
)
