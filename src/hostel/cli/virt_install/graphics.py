"""``--graphics``: the display of the machine, and who may look at it."""

from __future__ import annotations

from typing import Final

from hostel.cli.virt_install.device import ADDRESSES
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import Hook, Kind, Sub, SubOptions, number
from hostel.errors import UsageError

_FIRST_PORT: Final = 5900
_AUTOMATIC: Final = "-1"
_KINDS: Final = ("vnc", "spice", "sdl", "rdp", "egl-headless", "dbus", "desktop")

GRAPHICS: Final = SubOptions(
    "--graphics",
    (
        *ADDRESSES,
        Sub("type", "@type", skip="default"),
        Sub("port"),
        Sub("tlsPort", aliases=("tlsport",)),
        Sub("websocket", "@websocket", Kind.NUMBER),
        Sub("listen"),
        Sub("keymap"),
        Sub("password", "@passwd", aliases=("passwd",)),
        Sub("passwordValidTo", "@passwdValidTo", aliases=("passwdValidTo",)),
        Sub("connected", "@connected"),
        Sub("defaultMode", "@defaultMode"),
        Sub("listens[0-9]*.type", "listen[{}]/@type"),
        Sub("listens[0-9]*.address", "listen[{}]/@address"),
        Sub("listens[0-9]*.network", "listen[{}]/@network"),
        Sub("listens[0-9]*.socket", "listen[{}]/@socket"),
        Sub("image.compression", "image/@compression", aliases=("image_compression",)),
        Sub("streaming.mode", "streaming/@mode", aliases=("streaming_mode",)),
        Sub("clipboard.copypaste", "clipboard/@copypaste", Kind.YES_NO, aliases=("clipboard_copypaste",)),
        Sub("mouse.mode", "mouse/@mode", aliases=("mouse_mode",)),
        Sub("filetransfer.enable", "filetransfer/@enable", Kind.YES_NO, aliases=("filetransfer_enable",)),
        Sub("zlib.compression", "zlib/@compression"),
        Sub("gl.enable", "gl/@enable", Kind.YES_NO, aliases=("gl",)),
        Sub("gl.rendernode", "gl/@rendernode", aliases=("rendernode",)),
    ),
    ("type",),
)


def read_graphics(guest: Guest, text: str) -> None:
    """``--graphics``: one display; ``none`` for a machine without."""
    if text == "none":
        guest.without.add("graphics")
        return
    part = Part("graphics")
    hooks: dict[str, Hook] = {
        "port": _port_of("Port", "@port"),
        "tlsPort": _port_of("TLS Port", "@tlsPort"),
        "listen": _listen,
        "keymap": _keymap,
    }
    GRAPHICS.apply(GRAPHICS.read(text), part, hooks, guest)
    kind = part.get("@type")
    if kind is not None and kind not in _KINDS:
        raise UsageError(f"unknown graphics type '{kind}'; write vnc, or none for a machine without a display")
    guest.devices["graphics"].append(part)


def _port_of(label: str, path: str) -> Hook:
    def put(guest: Guest, part: Part, value: str | None) -> None:
        if value is not None:
            port = number(path.removeprefix("@"), value)
            if port < _FIRST_PORT and str(port) != _AUTOMATIC:
                raise UsageError(f"{label} must be above 5900, or -1 for auto allocation")
            value = str(port)
        part.put(path, value)

    return put


def _listen(guest: Guest, part: Part, value: str | None) -> None:
    part.clear("listen")
    if value in ("none", "socket"):
        part.put("listen[0]/@type", value)
        if value == "none":
            part.clear("@port")
            part.clear("@tlsPort")
    else:
        part.put("@listen", value)


def _keymap(guest: Guest, part: Part, value: str | None) -> None:
    part.put("@keymap", None if value is None or value.lower() in ("local", "none") else value)


def complete(guest: Guest) -> None:
    """Choose type and ports of the displays where they were left open."""
    for part in guest.devices["graphics"]:
        part.default("@type", "spice" if guest.host.has_spice else "vnc")
        kind = part.get("@type")
        has_port = part.get("listen[0]/@type") in (None, "address", "network")
        if kind in ("vnc", "spice") and has_port:
            part.default("@port", _AUTOMATIC)
        if kind == "spice":
            if has_port:
                part.default("@tlsPort", _AUTOMATIC)
            if part.get("@port") == part.get("@tlsPort") == _AUTOMATIC:
                part.default("@autoport", "yes")
            part.default("image/@compression", "off")


def has_spice(guest: Guest) -> bool:
    """Whether there is a SPICE display, which wants devices of its own."""
    return any(part.get("@type") == "spice" for part in guest.devices["graphics"])
