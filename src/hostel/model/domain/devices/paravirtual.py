"""Small virtio devices and their like: memory balloon, random numbers, vsock, shared memory."""

from __future__ import annotations

from hostel.codec.xml import (
    ON_OFF,
    YES_NO,
    Element,
    attr,
    child,
    children,
    choice,
    content,
    enumeration,
    integer,
    setting,
)
from hostel.errors import ErrorCode
from hostel.model.domain.devices.character import CharacterSource, CharacterType, Log
from hostel.model.domain.devices.device import Device, VirtioDriver
from hostel.model.scaled import Scaled

_VIRTIO = ("virtio", "virtio-transitional", "virtio-non-transitional")


class MemoryBalloon(Device, tag="memballoon", last=("driver",)):
    """The balloon that gives memory back to the host."""

    model: str = attr(choice("virtio", "xen", "none", "virtio-transitional", "virtio-non-transitional"))
    autodeflate: bool | None = attr(ON_OFF, default=None)
    free_page_reporting: bool | None = attr(ON_OFF, name="freePageReporting", default=None)
    stats_period: int | None = setting(integer(base=0), tag="stats", name="period", default=None, implied=None)
    driver: VirtioDriver | None = child(VirtioDriver, default=None)


class RngRate(Element, tag="rate"):
    """At most so many bytes in so many milliseconds."""

    bytes: int = attr(integer(1))
    period: int | None = attr(integer(1), default=None)


class RngBackend(Element, tag="backend"):
    """Where random numbers come from: a file, a daemon at the end of a channel, or QEMU."""

    model: str = attr(
        choice("random", "egd", "builtin", code=ErrorCode.CONFIG_UNSUPPORTED, words="unknown RNG backend model '{}'")
    )
    type: CharacterType | None = attr(enumeration(CharacterType), default=None)
    path: str | None = content(default=None)
    sources: list[CharacterSource] = children(CharacterSource, factory=list)
    protocol: str | None = setting(choice("raw", "telnet", "telnets", "tls"), name="type", default=None, implied="raw")
    log: Log | None = child(Log, default=None)


class Rng(Device, tag="rng"):
    """A source of random numbers for the guest."""

    model: str = attr(choice(*_VIRTIO, code=ErrorCode.CONFIG_UNSUPPORTED, words="unknown RNG model '{}'"))
    rate: RngRate | None = child(RngRate, default=None)
    backend: RngBackend = child(RngBackend)
    driver: VirtioDriver | None = child(VirtioDriver, default=None)


class VsockCid(Element, tag="cid", drop_empty=True):
    """The guest's address."""

    auto: bool | None = attr(YES_NO, default=None)
    address: int | None = attr(integer(3), default=None)


class Vsock(Device, tag="vsock", last=("driver",)):
    """Sockets between host and guest."""

    model: str | None = attr(choice("default", *_VIRTIO), default=None)
    cid: VsockCid | None = child(VsockCid, default=None)
    driver: VirtioDriver | None = child(VirtioDriver, default=None)


class ShmemSize(Scaled, tag="size"):
    """How much memory is shared."""

    DEFAULT_UNIT = "bytes"


class ShmemServer(Element, tag="server"):
    """The socket of an ivshmem server."""

    path: str | None = attr(default=None)


class ShmemMsi(Element, tag="msi"):
    """Interrupts between guests."""

    vectors: int | None = attr(integer(base=0), default=None)
    ioeventfd: bool | None = attr(ON_OFF, default=None)


class SharedMemory(Device, tag="shmem"):
    """Memory that guests share."""

    name: str = attr()
    role: str | None = attr(choice("master", "peer"), default=None)
    model: str | None = setting(
        choice("ivshmem", "ivshmem-plain", "ivshmem-doorbell"), name="type", default=None, implied=None
    )
    size: ShmemSize | None = child(ShmemSize, default=None)
    server: ShmemServer | None = child(ShmemServer, default=None)
    msi: ShmemMsi | None = child(ShmemMsi, default=None)
