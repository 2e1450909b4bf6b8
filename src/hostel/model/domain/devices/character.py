"""Character devices: serial and parallel ports, consoles, channels; and the sources that others share with them.

``virDomainChrDefFormat``, ``virDomainChrSourceDefFormat``.
"""

from __future__ import annotations

import enum

from hostel.codec.xml import ON_OFF, YES_NO, Element, attr, child, children, choice, enumeration, integer, setting
from hostel.errors import ErrorCode
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.seclabel import DeviceSecurityLabel
from hostel.model.domain.devices.source import Reconnect


class CharacterType(enum.StrEnum):
    """``virDomainChrType``: what is at the host's end."""

    NULL = "null"
    VC = "vc"
    PTY = "pty"
    DEV = "dev"
    FILE = "file"
    PIPE = "pipe"
    STDIO = "stdio"
    UDP = "udp"
    TCP = "tcp"
    UNIX = "unix"
    SPICEVMC = "spicevmc"
    SPICEPORT = "spiceport"
    NMDM = "nmdm"
    QEMU_VDAGENT = "qemu-vdagent"
    DBUS = "dbus"


class CharacterSource(Element, tag="source", drop_empty=True):
    """The host's end; which attributes count depends on the device's ``type``."""

    mode: str | None = attr(choice("connect", "bind"), default=None)
    path: str | None = attr(default=None)
    append: bool | None = attr(ON_OFF, default=None)
    master: str | None = attr(default=None)
    slave: str | None = attr(default=None)
    host: str | None = attr(default=None)
    service: str | None = attr(default=None)
    tls: bool | None = attr(YES_NO, default=None)
    channel: str | None = attr(default=None)
    seclabels: list[DeviceSecurityLabel] = children(DeviceSecurityLabel, factory=list)
    reconnect: Reconnect | None = child(Reconnect, default=None)
    clipboard: bool | None = setting(YES_NO, name="copypaste", default=None)
    mouse: str | None = setting(choice("server", "client"), name="mode", default=None)


class Log(Element, tag="log"):
    """A file that gets a copy of what the guest writes."""

    file: str = attr()
    append: bool | None = attr(ON_OFF, default=None)


class CharacterEnd(Device, leads=True):
    """A device with an end on the host: sources (two for UDP), protocol, log."""

    sources: list[CharacterSource] = children(CharacterSource, factory=list)
    protocol: str | None = setting(choice("raw", "telnet", "telnets", "tls"), name="type", default=None, implied="raw")
    log: Log | None = child(Log, default=None)

    @property
    def source(self) -> CharacterSource | None:
        """The first source."""
        return self.sources[0] if self.sources else None


_UNKNOWN_TARGET = "unknown target type '{}' specified for character device"
_BACK_END = enumeration(
    CharacterType,
    code=ErrorCode.CONFIG_UNSUPPORTED,
    words="unknown type presented to host for character device: {}",
)


class CharacterBackend(CharacterEnd, leads=True):
    """A device that is one, of a type."""

    type: CharacterType = attr(_BACK_END, default=CharacterType.PTY)


class SerialTarget(Element, tag="target"):
    """The guest's end of a serial port."""

    type: str | None = attr(
        choice(
            "isa-serial",
            "usb-serial",
            "pci-serial",
            "spapr-vio-serial",
            "system-serial",
            "sclp-serial",
            "isa-debug",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words=_UNKNOWN_TARGET,
        ),
        default=None,
    )
    port: int | None = attr(integer(), default=None)
    model: str | None = setting(
        choice(
            "isa-serial", "usb-serial", "pci-serial", "spapr-vty", "pl011", "sclpconsole", "sclplmconsole", "16550a",
            "isa-debugcon",
        ),
        name="name",
        default=None,
    )  # fmt: skip


class Serial(CharacterBackend, tag="serial"):
    """A serial port."""

    target: SerialTarget | None = child(SerialTarget, default=None)


class ParallelTarget(Element, tag="target"):
    """The guest's end of a parallel port."""

    port: int | None = attr(integer(), default=None)


class Parallel(CharacterBackend, tag="parallel"):
    """A parallel port."""

    target: ParallelTarget | None = child(ParallelTarget, default=None)


class ConsoleTarget(Element, tag="target"):
    """The guest's end of a console; of type ``serial`` it is a serial port."""

    type: str | None = attr(
        choice(
            "none",
            "serial",
            "xen",
            "uml",
            "virtio",
            "lxc",
            "openvz",
            "sclp",
            "sclplm",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words=_UNKNOWN_TARGET,
        ),
        default=None,
    )
    port: int | None = attr(integer(), default=None)


class Console(CharacterBackend, tag="console"):
    """A console; ``tty`` is its terminal on the host while the domain runs."""

    tty: str | None = attr(default=None)
    target: ConsoleTarget | None = child(ConsoleTarget, default=None)


class ChannelTarget(Element, tag="target"):
    """The guest's end of a channel."""

    type: str | None = attr(
        choice("guestfwd", "virtio", "xen", code=ErrorCode.CONFIG_UNSUPPORTED, words=_UNKNOWN_TARGET), default=None
    )
    address: str | None = attr(default=None)
    port: int | None = attr(integer(), default=None)
    name: str | None = attr(default=None)
    state: str | None = attr(choice("connected", "disconnected"), default=None)


class Channel(CharacterBackend, tag="channel"):
    """A channel between a program of the guest and one of the host."""

    target: ChannelTarget | None = child(ChannelTarget, default=None)
