"""The options of character devices: ``--serial``, ``--parallel``, ``--channel`` and ``--console``."""

from __future__ import annotations

from typing import Final

from hostel.cli.virt_install.device import ADDRESSES
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import Given, Hook, Kind, Sub, SubOptions, number

_BIND: Final = "source[@mode='bind']"
_CONNECT: Final = "source[@mode='connect']"
_SUBS: Final = (
    *ADDRESSES,
    Sub("type", "@type", aliases=("char_type",)),
    Sub("path"),
    Sub("mode"),
    Sub("bind_host"),
    Sub("host"),
    Sub("source.path", "source/@path"),
    Sub("source.host"),
    Sub("source.service", "source/@service", Kind.NUMBER),
    Sub("source.bind_host"),
    Sub("source.bind_service", f"{_BIND}/@service", Kind.NUMBER),
    Sub("source.connect_host"),
    Sub("source.connect_service", f"{_CONNECT}/@service", Kind.NUMBER),
    Sub("source.mode", "source/@mode"),
    Sub("source.master", "source/@master"),
    Sub("source.slave", "source/@slave"),
    Sub("source.channel", "source/@channel"),
    Sub("source.tls", "source/@tls", Kind.YES_NO),
    Sub("protocol.type", "protocol/@type", aliases=("protocol",)),
    Sub("log.file", "log/@file"),
    Sub("log.append", "log/@append", Kind.ON_OFF),
    Sub("target.address", aliases=("target_address",)),
    Sub("target.type", "target/@type", aliases=("target_type",)),
    Sub("target.name", "target/@name", aliases=("name",)),
    Sub("target.port", "target/@port", Kind.NUMBER),
    Sub("target.model.name", "target/model/@name"),
)
_RENAMED: Final = (("path", "source.path"), ("mode", "source.mode"), ("bind_host", "source.bind_host"))
SERIAL, PARALLEL, CHANNEL, CONSOLE = (
    SubOptions(flag, _SUBS, ("type",), _RENAMED) for flag in ("--serial", "--parallel", "--channel", "--console")
)
# "none" keeps virt-install from adding these by default.
_DECLINED: Final = ("console", "channel")


def _host_of(given: Given) -> Hook:
    """``host=`` of old: where to listen with ``mode=bind``, else where to connect."""
    listens = "source.bind_host" not in given and given.get("source.mode") == "bind"
    return _endpoint(_BIND if listens else _CONNECT, "host", "service")


def _endpoint(element: str, host: str, port: str) -> Hook:
    """Put ``HOST:PORT`` into two attributes; a port alone is on this host."""

    def put(guest: Guest, part: Part, value: str | None) -> None:
        name, colon, service = (value or "").rpartition(":")
        if not colon:
            part.put(f"{element}/@{host}", value)
            return
        part.put(f"{element}/@{host}", name or "127.0.0.1")
        part.put(f"{element}/@{port}", str(number(port, service)))

    return put


def _read(kind: str, options: SubOptions, guest: Guest, text: str) -> None:
    if text == "none" and kind in _DECLINED:
        guest.without.add(kind)
        return
    part = Part(kind)
    given = options.read(text)
    hooks: dict[str, Hook] = {
        "host": _host_of(given),
        "source.host": _endpoint("source", "host", "service"),
        "source.bind_host": _endpoint(_BIND, "host", "service"),
        "source.connect_host": _endpoint(_CONNECT, "host", "service"),
        "target.address": _endpoint("target", "address", "port"),
    }
    options.apply(given, part, hooks, guest)
    guest.devices[kind].append(part)


def read_serial(guest: Guest, text: str) -> None:
    """``--serial``: a serial port."""
    _read("serial", SERIAL, guest, text)


def read_parallel(guest: Guest, text: str) -> None:
    """``--parallel``: a parallel port."""
    _read("parallel", PARALLEL, guest, text)


def read_channel(guest: Guest, text: str) -> None:
    """``--channel``: a channel between the guest and the host."""
    _read("channel", CHANNEL, guest, text)


def read_console(guest: Guest, text: str) -> None:
    """``--console``: a text console."""
    _read("console", CONSOLE, guest, text)
