"""``<filesystem>``: directories of the host in the guest (``virDomainFSDefFormat``)."""

from __future__ import annotations

from hostel.codec.xml import ON_OFF, Element, attr, child, choice, flag, integer, octal, setting
from hostel.model.domain.devices.device import BootableDevice, VirtioOptions
from hostel.model.domain.devices.source import FORMATS
from hostel.model.scaled import Scaled

_U64 = 2**64 - 1


class FilesystemDriver(VirtioOptions, tag="driver", drop_empty=True):
    """Who serves the files."""

    type: str | None = attr(choice("default", "path", "handle", "loop", "nbd", "ploop", "virtiofs"), default=None)
    format_name: str | None = attr(choice(*FORMATS), name="format", default=None)
    wrpolicy: str | None = attr(choice("default", "immediate"), default=None)
    queue: int | None = attr(integer(maximum=_U64), default=None)


class FilesystemLock(Element, tag="lock", drop_empty=True):
    """Which locks virtiofsd takes for the guest."""

    posix: bool | None = attr(ON_OFF, default=None)
    flock: bool | None = attr(ON_OFF, default=None)


class FilesystemBinary(Element, tag="binary", drop_empty=True):
    """virtiofsd and its options."""

    path: str | None = attr(default=None)
    xattr: bool | None = attr(ON_OFF, default=None)
    cache: str | None = setting(choice("default", "none", "always"), name="mode", default=None, implied=None)
    sandbox: str | None = setting(choice("default", "namespace", "chroot"), name="mode", default=None, implied=None)
    lock: FilesystemLock | None = child(FilesystemLock, default=None)
    thread_pool: int | None = setting(integer(), name="size", default=None, implied=None)


class FilesystemSource(Element, tag="source", drop_empty=True):
    """What of the host is shown; which attribute counts depends on the ``type``."""

    dir: str | None = attr(default=None)
    socket: str | None = attr(default=None)
    dev: str | None = attr(default=None)
    file: str | None = attr(default=None)
    name: str | None = attr(default=None)
    usage: int | None = attr(integer(maximum=_U64), default=None)
    units: str | None = attr(default=None)
    pool: str | None = attr(default=None)
    volume: str | None = attr(default=None)


class SpaceHardLimit(Scaled, tag="space_hard_limit"):
    """The most that a container may store."""

    DEFAULT_UNIT = "bytes"


class SpaceSoftLimit(Scaled, tag="space_soft_limit"):
    """What a container may store for long."""

    DEFAULT_UNIT = "bytes"


class Filesystem(BootableDevice, tag="filesystem", last=("space_hard_limit", "space_soft_limit")):
    """A directory of the host."""

    type: str = attr(choice("mount", "block", "file", "template", "ram", "bind", "volume"), default="mount")
    accessmode: str | None = attr(choice("passthrough", "mapped", "squash"), default=None)
    model: str | None = attr(
        choice("default", "virtio", "virtio-transitional", "virtio-non-transitional"), default=None
    )
    multidevs: str | None = attr(choice("default", "remap", "forbid", "warn"), default=None)
    fmode: int | None = attr(octal(3, 0o7777), default=None)
    dmode: int | None = attr(octal(3, 0o7777), default=None)
    driver: FilesystemDriver | None = child(FilesystemDriver, default=None)
    binary: FilesystemBinary | None = child(FilesystemBinary, default=None)
    source: FilesystemSource | None = child(FilesystemSource, default=None)
    target: str | None = setting(name="dir", default=None)
    readonly: bool = flag(default=False)
    space_hard_limit: SpaceHardLimit | None = child(SpaceHardLimit, default=None)
    space_soft_limit: SpaceSoftLimit | None = child(SpaceSoftLimit, default=None)
