"""``--graphics``: the display of the machine, and who may look at it."""

from __future__ import annotations

import os
from typing import Final

from hostel.cli.virt_install import hostdev
from hostel.cli.virt_install.device import ADDRESSES
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import NoneMeans, Option
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import NUMBER, TEXT, YES_NO, Given, Hook, Sub, SubOptions, at
from hostel.errors import UsageError

_FIRST_PORT: Final = 5900
_AUTOMATIC: Final = "-1"
_KINDS: Final = ("vnc", "spice", "sdl", "rdp", "egl-headless", "dbus", "desktop")

GRAPHICS: Final = SubOptions(
    "--graphics",
    (
        *ADDRESSES,
        Sub("type", "@type", skip="default"),
        Sub("port", "@port", NUMBER),
        Sub("tlsPort", "@tlsPort", NUMBER, aliases=("tlsport",)),
        at("websocket", NUMBER),
        at("listen"),
        at("keymap"),
        Sub("password", "@passwd", aliases=("passwd",)),
        Sub("passwordValidTo", "@passwdValidTo", aliases=("passwdValidTo",)),
        at("connected"),
        at("defaultMode"),
        *(Sub(f"listens[0-9]*.{name}", f"listen[{{}}]/@{name}") for name in ("type", "address", "network", "socket")),
        at("image.compression", TEXT, "image_compression"),
        at("streaming.mode", TEXT, "streaming_mode"),
        at("clipboard.copypaste", YES_NO, "clipboard_copypaste"),
        at("mouse.mode", TEXT, "mouse_mode"),
        at("filetransfer.enable", YES_NO, "filetransfer_enable"),
        at("zlib.compression"),
        at("gl.enable", YES_NO, "gl"),
        at("gl.rendernode", TEXT, "rendernode"),
    ),
    ("type",),
    owner="graphics",
)


def _fill(guest: Guest, part: Part, given: Given) -> None:
    hooks: dict[str, Hook] = {
        "port": _port_of("Port", "@port"),
        "tlsPort": _port_of("TLS Port", "@tlsPort"),
        "listen": _listen,
        "keymap": _keymap,
    }
    GRAPHICS.apply(given, part, hooks, guest)
    kind = part.get("@type")
    if kind is not None and kind not in _KINDS:
        raise UsageError(f"unknown graphics type '{kind}'; write vnc, or none for a machine without a display")


OPTIONS: Final = (Option(GRAPHICS, _fill, NoneMeans.DECLINES),)


def _port_of(label: str, path: str) -> Hook:
    def put(guest: Guest, part: Part, value: str | None) -> None:
        if value is not None and int(value) < _FIRST_PORT and value != _AUTOMATIC:
            raise UsageError(f"{label} must be above 5900, or -1 for auto allocation")
        part.put("@autoport", _autoport(part))
        part.put(path, value)

    return put


def _autoport(part: Part) -> str | None:
    """Whether the hypervisor chooses both ports of a SPICE display."""
    is_open = part.get("@type") == "spice" and part.get("@port") == part.get("@tlsPort") == _AUTOMATIC
    return "yes" if is_open else None


def _listen(guest: Guest, part: Part, value: str | None) -> None:
    part.clear("listen")
    if value == "none":
        for path in ("@listen", "@port", "@tlsPort", "@autoport", "@socket"):
            part.put(path, None)
    if value in ("none", "socket"):
        part.put("listen[0]/@type", value)
    else:
        part.put("@listen", value)


def _keymap(guest: Guest, part: Part, value: str | None) -> None:
    part.put("@keymap", None if value is None or value.lower() in ("local", "none") else value)


def complete(guest: Guest, part: Part) -> None:
    """Choose type and ports of a display where they were left open."""
    part.default("@type", "spice" if guest.has_spice else "vnc")
    kind = part.get("@type")
    if kind == "sdl":
        part.default("@xauth", os.path.expanduser("~/.Xauthority"))
        part.default("@display", os.environ.get("DISPLAY"))
    has_port = part.get("listen[0]/@type") in (None, "address", "network")
    if kind in ("vnc", "spice") and has_port:
        part.default("@port", _AUTOMATIC)
    if kind != "spice":
        return
    if has_port:
        part.default("@tlsPort", _AUTOMATIC)
    part.default("@autoport", _autoport(part))
    if not guest.host.is_remote:
        part.default("image/@compression", "off")
    if part.get("gl/@enable") == "yes":
        part.default("gl/@rendernode", hostdev.render_node(guest.host))


def has_spice(guest: Guest) -> bool:
    """Whether there is a SPICE display, which wants devices of its own."""
    return any(part.get("@type") == "spice" for part in guest.devices["graphics"])
