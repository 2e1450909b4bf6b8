"""Domain management: where a domain's screens are."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

from hostel.cli.options import Args, Command, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.session import DOMAIN, CommandError, Session
from hostel.drivers.base import DomainXmlFlag

_SCHEMES: Final = ("vnc", "spice", "rdp", "dbus")
_VNC_FIRST: Final = 5900
_DBUS: Final = "unix:path="


def _display(session: Session, args: Args) -> None:
    args.exclude("all", "type")
    domain = session.domain(args)
    if domain.id == -1:
        raise CommandError("Domain is not running")
    flags = DomainXmlFlag.SECURE if args.has("include-password") else DomainXmlFlag.NONE
    root = document.tree(session.hypervisor.domain_get_xml_desc(domain, flags))
    wanted = args.get("type")
    schemes = [name for name in _SCHEMES if args.has("all") or wanted in (None, name)]
    found = [uri for name in schemes if (uri := _uri(session, root, name)) is not None]
    if not found:
        named = f"No graphical display with type '{wanted}' found"
        raise CommandError("No graphical display found" if wanted is None else named)
    session.output.text("".join(f"{uri}\n" for uri in found) if args.has("all") else found[0])


def _uri(session: Session, root: Element, scheme: str) -> str | None:
    """Where the first screen of a kind is; None where there is none, or it is nowhere."""
    graphics = root.find(f"devices/graphics[@type='{scheme}']")
    if graphics is None:
        return None
    if scheme == "dbus":
        return _dbus(graphics.get("address"))
    port, tls_port = (_number(graphics.get(name)) for name in ("port", "tlsPort"))
    listen = graphics.find("listen")
    socket = listen.get("socket") if listen is not None and listen.get("type") == "socket" else None
    if not port and not tls_port and socket is None:
        return None
    password = graphics.get("passwd")
    text = f"{scheme}{'+unix' if socket is not None else ''}://"
    if scheme == "vnc" and password is not None:
        text += f":{password}@"
    text += socket if socket is not None else _host(session, graphics, listen)
    if port:
        text += f":{port - _VNC_FIRST if scheme == 'vnc' else port}"
    parts = [f"tls-port={tls_port}"] if tls_port else []
    parts += [f"password={password}"] if scheme == "spice" and password is not None else []
    return text + (f"?{'&'.join(parts)}" if parts else "")


def _dbus(address: str | None) -> str | None:
    if address is None:
        return None
    if not address.startswith(_DBUS):
        raise CommandError(f"'{address}' D-Bus address is not handled")
    return f"dbus+unix://{address.removeprefix(_DBUS)}"


def _host(session: Session, graphics: Element, listen: Element | None) -> str:
    """The address, or where that is any: the host that we are connected to."""
    address = graphics.get("listen")
    if address is None:
        address = listen.get("address") if listen is not None else None
    elif _is_any(address):
        address = urlsplit(session.connection.uri).hostname
    if not address:
        return "localhost"
    return f"[{address}]" if ":" in address else address


def _is_any(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def _number(text: str | None) -> int:
    try:
        return int(text or "0")
    except ValueError:
        return 0


COMMANDS: Final = (
    Command(
        "domdisplay",
        "where a domain's screen is",
        (
            DOMAIN,
            flag("include-password", "with its password"),
            value("type", "only a screen of this kind: vnc, spice, rdp or dbus"),
            flag("all", "all of them"),
        ),
        _display,
    ),
)
