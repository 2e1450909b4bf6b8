"""``<video>`` (``virDomainVideoDefFormat``)."""

from __future__ import annotations

from hostel.codec.xml import ON_OFF, YES_NO, Element, attr, child, choice, integer
from hostel.errors import ErrorCode
from hostel.model.domain.devices.device import Device, VirtioOptions


class VideoDriver(VirtioOptions, tag="driver", drop_empty=True, last=("name", "vgaconf")):
    """Who draws."""

    vgaconf: str | None = attr(choice("io", "on", "off"), default=None)
    name: str | None = attr(choice("default", "qemu", "vhostuser"), default=None)


class Acceleration(Element, tag="acceleration", drop_empty=True):
    """What the host's graphics hardware does."""

    accel3d: bool | None = attr(YES_NO, default=None)
    accel2d: bool | None = attr(YES_NO, default=None)
    rendernode: str | None = attr(default=None)


class Resolution(Element, tag="resolution"):
    """The screen's size at the start, in pixels."""

    x: int = attr(integer(1))
    y: int = attr(integer(1))


class VideoModel(Element, tag="model"):
    """The card; memory in KiB."""

    type: str = attr(
        choice(
            "default", "vga", "cirrus", "vmvga", "xen", "vbox", "qxl", "parallels", "virtio", "gop", "none", "bochs",
            "ramfb", code=ErrorCode.CONFIG_UNSUPPORTED, words="unknown video model '{}'",
        )
    )  # fmt: skip
    ram: int | None = attr(integer(), default=None)
    vram: int | None = attr(integer(), default=None)
    vram64: int | None = attr(integer(), default=None)
    vgamem: int | None = attr(integer(), default=None)
    heads: int | None = attr(integer(), default=None)
    primary: bool | None = attr(YES_NO, default=None)
    blob: bool | None = attr(ON_OFF, default=None)
    acceleration: Acceleration | None = child(Acceleration, default=None)
    resolution: Resolution | None = child(Resolution, default=None)


class Video(Device, tag="video", keep_open=True):
    """A graphics card."""

    driver: VideoDriver | None = child(VideoDriver, default=None)
    model: VideoModel | None = child(VideoModel, default=None)
