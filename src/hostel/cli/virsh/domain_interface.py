"""Domain management: network interfaces that are attached and detached, and their links."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.affect import ALL, CONFIG, check
from hostel.cli.virsh.device import attach_described, detach, devices
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base import DomainXmlFlag
from hostel.drivers.base.device import DeviceModify
from hostel.drivers.base.domain import Affect

_RATES: Final = ("average", "peak", "burst", "floor")


def _attach_interface(session: Session, args: Args) -> None:
    check(args)
    attach_described(session, args, "interface", _interface_xml(args))


def _interface_xml(args: Args) -> str:
    kind, source = args["type"], args["source"]
    sources = {
        "network": lambda: document.empty("source", network=source),
        "bridge": lambda: document.empty("source", bridge=source),
        "direct": lambda: document.empty("source", dev=source),
        "hostdev": lambda: document.nested("source", _host_address(source)),
        "vhostuser": lambda: document.empty("source", type="unix", path=source, mode=_source_mode(args)),
    }
    if kind not in sources:
        raise CommandError(f"No support for {kind} in command 'attach-interface'")
    inbound, outbound = _rate("inbound", args), _rate("outbound", args)
    inner = [sources[kind]()]
    for option, tag, name in (
        ("target", "target", "dev"), ("mac", "mac", "address"), ("script", "script", "path"),
        ("model", "model", "type"), ("alias", "alias", "name"),
    ):  # fmt: skip
        if (text := args.get(option)) is not None:
            inner.append(document.empty(tag, **{name: text}))
    if inbound or outbound:
        rates = [document.empty(tag, **rate) for tag, rate in (("inbound", inbound), ("outbound", outbound)) if rate]
        inner.append(document.nested("bandwidth", *rates))
    return document.nested("interface", *inner, type=kind, managed="yes" if args.has("managed") else None)


def _source_mode(args: Args) -> str:
    mode = args.get("source-mode")
    if mode is None:
        raise CommandError("source-mode is mandatory")
    if mode not in ("server", "client"):
        raise CommandError(f"Invalid source mode: {mode}")
    return mode


def _host_address(source: str) -> str:
    parts = source.replace(":", ".").split(".")
    try:
        numbers = [int(part, 16) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise CommandError(f"cannot parse pci address '{source}' for network interface")
    domain, bus, slot, function = (f"{number:#04x}" for number in numbers)
    return document.empty("address", type="pci", domain=domain, bus=bus, slot=slot, function=function)


def _rate(option: str, args: Args) -> dict[str, str]:
    """``average,peak,burst,floor``, each of which may be left out."""
    text = args.get(option)
    if text is None:
        return {}
    rate: dict[str, str] = {}
    parts = text.split(",")
    for name, part in zip(_RATES, parts, strict=False):
        if part and not part.isdecimal():
            raise CommandError(f"malformed {name} value '{part}' in rate '{text}'")
        if part and int(part):
            rate[name] = part
    if len(parts) > len(_RATES):
        raise CommandError(f"Rate string '{text}' has too many fields")
    if option == "inbound" and not rate.get("average") and not rate.get("floor"):
        raise CommandError("either inbound average or floor is mandatory")
    if option == "outbound" and not rate.get("average"):
        raise CommandError("outbound average is mandatory")
    if option == "outbound" and rate.get("floor"):
        raise CommandError("outbound floor is unsupported yet")
    return rate


def _detach_interface(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    config = args.has("config") or args.has("persistent")
    live = args.has("live") or (args.has("persistent") and domain.id != -1)
    wanted = [Affect.CONFIG] if config else []
    if live or not config:
        wanted.append(Affect.LIVE if live else Affect.CURRENT)
    for affect in wanted:
        flags = DomainXmlFlag.INACTIVE if affect == Affect.CONFIG else DomainXmlFlag.NONE
        tree = document.parse(session.hypervisor.domain_get_xml_desc(domain, flags))
        xml = document.written(_find_interface(tree, args))
        if args.has("print-xml"):
            session.output.text(xml)
            continue
        with failing("Failed to detach interface"):
            detach(session, domain, xml, affect, args)
    if not args.has("print-xml"):
        session.output.note("Interface detached successfully")


def _find_interface(tree: Any, args: Args) -> Any:
    kind, mac = args["type"], args.get("mac")
    found = [item for item in tree.iterfind("devices/interface") if item.get("type") == kind]
    with _detaching_interface():
        if not found:
            raise CommandError(f"No interface found whose type is {kind}")
        if mac is None:
            if len(found) > 1:
                raise CommandError(
                    f"Domain has {len(found)} interfaces. Please specify which one to detach using --mac"
                )
            return found[0]
        same = [item for item in found if (item.find("mac").get("address") or "").lower() == mac.lower()]
        if len(same) > 1:
            raise CommandError(
                f"Domain has multiple interfaces matching MAC address {mac}. You must use detach-device and "
                "specify the device pci address to remove it."
            )
        if not same:
            raise CommandError(f"No interface with MAC address {mac} was found")
        return same[0]


@contextlib.contextmanager
def _detaching_interface() -> Iterator[None]:
    """Say after what was wrong what was tried, as virsh does of interfaces."""
    try:
        yield
    except CommandError as error:
        raise CommandError(f"{error.tried}\nFailed to detach interface") from None


def _set_link(session: Session, args: Args) -> None:
    state = args["state"]
    domain = session.domain(args)
    if state not in ("up", "down"):
        raise CommandError(f"invalid link state '{state}'")
    affect = Affect.CONFIG if args.has("config") or domain.id == -1 else Affect.LIVE
    flags = DomainXmlFlag.INACTIVE if affect == Affect.CONFIG else DomainXmlFlag.NONE
    tree = document.parse(session.hypervisor.domain_get_xml_desc(domain, flags))
    interface = find_interface(tree, args["interface"])
    link = interface.find("link")
    if link is None:
        link = interface.makeelement("link", {})
        interface.append(link)
    link.set("state", state)
    if args.has("print-xml"):
        session.output.text(document.written(interface))
        return
    with failing("Failed to update interface link state"):
        found = devices(session, "virDomainUpdateDeviceFlags")
        found.domain_update_device_flags(domain, document.written(interface), affect, DeviceModify.NONE)
    session.output.note("Device updated successfully")


def find_interface(tree: Any, name: str, *, missing: str | None = None) -> Any:
    """The interface of a MAC address, or of a name on the host; ``missing`` is what to say where there is none.

    Raises:
        CommandError: there is none, or more than one.
    """
    found = []
    for interface in tree.iterfind("devices/interface"):
        mac, target = interface.find("mac"), interface.find("target")
        is_mac = mac is not None and (mac.get("address") or "").lower() == name.lower()
        if is_mac or (target is not None and target.get("dev") == name):
            found.append(interface)
    if not found:
        raise CommandError(missing or f"interface '{name}' not found")
    if len(found) > 1:
        raise CommandError(f"multiple matching interfaces found for '{name}'")
    return found[0]


COMMANDS = (
    Command(
        "attach-interface",
        "attach a network interface",
        (
            DOMAIN,
            data("type", "network, bridge, direct, hostdev or vhostuser"),
            data("source", "what on the host it is connected to"),
            *(
                value(name, text)
                for name, text in (
                    ("target", "its name on the host"),
                    ("mac", "its MAC address"),
                    ("script", "what connects it"),
                    ("model", "the card that the guest sees"),
                    ("alias", "its alias, which begins with ua-"),
                    ("inbound", "limits: average,peak,burst,floor"),
                    ("outbound", "limits: average,peak,burst"),
                )
            ),
            *ALL,
            flag("print-xml", "print the document, and attach nothing"),
            flag("managed", "a host's device is taken from the host, and given back"),
            value("source-mode", "server or client"),
        ),
        _attach_interface,
    ),
    Command(
        "detach-interface",
        "detach a network interface",
        (
            DOMAIN,
            data("type", "its type"),
            value("mac", "its MAC address"),
            *ALL,
            flag("print-xml", "print the document, and detach nothing"),
        ),
        _detach_interface,
    ),
    Command(
        "domif-setlink",
        "plug a cable into an interface, or pull it out",
        (
            DOMAIN,
            data("interface", "its MAC address, or its name on the host"),
            data("state", "up or down"),
            CONFIG,
            flag("print-xml", "print the document, and change nothing"),
        ),
        _set_link,
    ),
)
