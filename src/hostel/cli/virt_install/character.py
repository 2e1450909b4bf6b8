"""The options of devices with a character stream on the host: serial ports, channels, smart cards and others."""

from __future__ import annotations

from typing import Final

from hostel.cli.virt_install.device import ADDRESSES, BOOT_ORDER, VIRTIO, set_boot_order
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import Fill, NoneMeans, Option
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import NUMBER, ON_OFF, TEXT, YES_NO, Given, Hook, Sub, SubOptions, at, number

_BIND: Final = "source[@mode='bind']"
_CONNECT: Final = "source[@mode='connect']"
_SOURCE: Final = (
    at("source.path"),
    at("source.host"),
    at("source.service", NUMBER),
    Sub("source.bind_host", f"{_BIND}/@host"),
    Sub("source.bind_service", f"{_BIND}/@service", NUMBER),
    Sub("source.connect_host", f"{_CONNECT}/@host"),
    Sub("source.connect_service", f"{_CONNECT}/@service", NUMBER),
    at("source.mode"),
    at("source.master"),
    at("source.slave"),
    at("source.seclabel[0-9]*.model"),
    at("source.seclabel[0-9]*.relabel", YES_NO),
    Sub("source.seclabel[0-9]*.label", "source/seclabel[{}]/label", comma=True),
    at("protocol.type"),
    at("log.file"),
    at("log.append", ON_OFF),
    at("source.clipboard.copypaste", YES_NO),
    at("source.mouse.mode"),
    at("source.channel"),
    at("source.tls", YES_NO),
)
_SUBS: Final = (
    *ADDRESSES,
    at("type", TEXT, "char_type"),
    Sub("path"),
    Sub("mode"),
    Sub("bind_host"),
    Sub("host", "source/@host"),
    *(sub._replace(aliases=("protocol",)) if sub.name == "protocol.type" else sub for sub in _SOURCE),
    at("target.address", TEXT, "target_address"),
    at("target.type", TEXT, "target_type"),
    at("target.name", TEXT, "name"),
    at("target.port", NUMBER),
    at("target.model.name"),
)
_RENAMED: Final = (("path", "source.path"), ("mode", "source.mode"), ("bind_host", "source.bind_host"))
_KINDS: Final = {
    "serial": NoneMeans.VALUE,
    "parallel": NoneMeans.VALUE,
    "channel": NoneMeans.DECLINES,
    "console": NoneMeans.DECLINES,
}

SMARTCARD: Final = SubOptions(
    "--smartcard",
    (
        *ADDRESSES,
        Sub("mode", "@mode", skip="default"),
        Sub("type", "@type", skip="default"),
        *_SOURCE,
        Sub("database", "database", comma=True),
        Sub("certificate[0-9]*", "certificate[{}]", comma=True),
    ),
    ("mode",),
    owner="smartcard",
)
REDIRDEV: Final = SubOptions(
    "--redirdev",
    (
        *ADDRESSES,
        BOOT_ORDER,
        Sub("bus", "@bus", skip="default"),
        Sub("type", "@type", skip="default"),
        Sub("server"),
        *_SOURCE,
    ),
    ("bus",),
    owner="redirdev",
)
_OLD_RNG: Final = {
    "backend.source.host": "backend_host",
    "backend.source.service": "backend_service",
    "backend.source.connect_host": "backend_connect_host",
    "backend.source.connect_service": "backend_connect_service",
    "backend.source.mode": "backend_mode",
}


def _in_backend(sub: Sub) -> Sub:
    name = f"backend.{sub.name}"
    return sub._replace(name=name, path=f"backend/{sub.path}", aliases=(_OLD_RNG[name],) if name in _OLD_RNG else ())


RNG: Final = SubOptions(
    "--rng",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("type", "backend/@model"),
        Sub("device", "backend"),
        at("model"),
        Sub("backend", "backend"),
        at("backend.model"),
        at("backend.type", TEXT, "backend_type"),
        *map(_in_backend, _SOURCE),
        at("rate.bytes", TEXT, "rate_bytes"),
        at("rate.period", TEXT, "rate_period"),
    ),
    ("backend.model",),
    (("type", "backend.model"), ("device", "backend")),
    owner="rng",
)


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


def _endpoints(prefix: str = "") -> dict[str, Hook]:
    """How the addresses of a stream are read, whose options and elements are in ``prefix``."""
    within = prefix.replace(".", "/")
    return {
        f"{prefix}source.host": _endpoint(f"{within}source", "host", "service"),
        f"{prefix}source.bind_host": _endpoint(f"{within}{_BIND}", "host", "service"),
        f"{prefix}source.connect_host": _endpoint(f"{within}{_CONNECT}", "host", "service"),
    }


def _host_of(given: Given) -> Hook:
    """``host=`` of old: where to listen with ``mode=bind``, else where to connect."""
    listens = "source.bind_host" not in given and given.get("source.mode") == "bind"
    return _endpoint(_BIND if listens else _CONNECT, "host", "service")


def _character(kind: str, none: NoneMeans) -> Option:
    table = SubOptions(f"--{kind}", _SUBS, ("type",), _RENAMED, owner=kind)

    def fill(guest: Guest, part: Part, given: Given) -> None:
        target = _endpoint("target", "address", "port")
        hooks = {**_endpoints(), "host": _host_of(given), "target.address": target}
        table.apply(given, part, hooks, guest)

    return Option(table, fill, none)


def _with_endpoints(table: SubOptions, hooks: dict[str, Hook]) -> Fill:
    def fill(guest: Guest, part: Part, given: Given) -> None:
        table.apply(given, part, hooks, guest)

    return fill


def _fill_rng(guest: Guest, part: Part, given: Given) -> None:
    """A path alone is a device of the host."""
    if (given.get("backend.model") or "").startswith("/"):
        given["backend"] = given.pop("backend.model")
        given["backend.model"] = "random"
    if given.get("backend") and (part.base is None or part.get("backend/@model") != "random"):
        part.clear("backend")  # of another model, which has no file
        given.setdefault("backend.model", "random")
    RNG.apply(given, part, _endpoints("backend."), guest)


_redirdev: Final[dict[str, Hook]] = {
    **_endpoints(),
    "server": _endpoint("source", "host", "service"),
    "boot.order": set_boot_order,
}
OPTIONS: Final = (
    *(_character(kind, none) for kind, none in _KINDS.items()),
    Option(SMARTCARD, _with_endpoints(SMARTCARD, _endpoints())),
    Option(REDIRDEV, _with_endpoints(REDIRDEV, _redirdev), NoneMeans.DECLINES),
    Option(RNG, _fill_rng, NoneMeans.DECLINES),
)
