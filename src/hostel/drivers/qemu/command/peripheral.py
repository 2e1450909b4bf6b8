"""Interfaces, character devices, graphics and the small devices."""

from __future__ import annotations

import json
from typing import Any, Final

from hostel.drivers.qemu.command.context import Context, escape
from hostel.drivers.qemu.command.disk import pci
from hostel.drivers.qemu.document import Node, alias, devices, number, text, unsupported

_NICS: Final = {"virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e", "rtl8139": "rtl8139",
                "ne2k_pci": "ne2k_pci", "pcnet": "pcnet", "vmxnet3": "vmxnet3"}  # fmt: skip
_VIDEO: Final = {
    "vga": "VGA",
    "cirrus": "cirrus-vga",
    "virtio": "virtio-vga",
    "qxl": "qxl-vga",
    "bochs": "bochs-display",
    "vmvga": "vmware-svga",
}
_USB_INPUT: Final = {"tablet": "usb-tablet", "keyboard": "usb-kbd"}
VNC_ID: Final = "vnc"
_VNC_FIRST: Final = 5900
_VNC_LAST: Final = 65535


def interfaces(root: Node, context: Context, bootindex: dict[Node, int], *, q35: bool) -> list[str]:
    """Network interfaces: a back end on the host and a card in the guest."""
    argv: list[str] = []
    for interface in devices(root, "interface"):
        name = alias(interface)
        model = text(interface, "model/@type", "e1000e" if q35 else "rtl8139")
        if model not in _NICS:
            raise unsupported(f"interface '{name}': model type '{model}'; write one of {', '.join(_NICS)}")
        backend = {**_backend(interface, context), "id": f"host{name}"}
        card: dict[str, Any] = {"driver": _NICS[model], "netdev": f"host{name}", "id": name}
        card |= {"mac": text(interface, "mac/@address"), **pci(interface, q35=q35)}
        if interface in bootindex:
            card["bootindex"] = bootindex[interface]
        argv += ["-netdev", json.dumps(backend), "-device", json.dumps(card)]
    return argv


def _backend(interface: Node, context: Context) -> dict[str, Any]:
    kind = interface.get("type")
    if kind == "user":
        return {"type": "user"}
    if kind == "bridge":
        return {"type": "bridge", "br": text(interface, "source/@bridge")}
    if kind == "network":
        bridge = context.bridge(text(interface, "source/@network"))
        return {"type": "user"} if bridge is None else {"type": "bridge", "br": bridge}
    if kind == "ethernet":
        script, target = text(interface, "script/@path"), text(interface, "target/@dev")
        tap: dict[str, Any] = {"type": "tap", "script": script or "no", "downscript": "no"}
        return {**tap, "ifname": target} if target else tap
    raise unsupported(f"interface type='{kind}' under qemu:///session; write user, network, bridge or ethernet")


def characters(root: Node) -> list[str]:
    """Serial ports, parallel ports and virtio consoles; a console on serial port 0 is that port."""
    argv: list[str] = []
    for tag, driver in (("serial", "isa-serial"), ("parallel", "isa-parallel")):
        for device in devices(root, tag):
            argv += ["-chardev", chardev(device)]
            spec = {"driver": driver, "chardev": f"char{alias(device)}", "id": alias(device)}
            argv += ["-device", json.dumps({**spec, "index": number(device, "target/@port", 0)})]
    has_serial = bool(devices(root, "serial"))
    for index, console in enumerate(devices(root, "console")):
        kind = text(console, "target/@type", "serial")
        if kind == "virtio":
            argv += ["-device", json.dumps({"driver": "virtio-serial-pci", "id": f"vs-{alias(console)}"})]
            argv += ["-chardev", chardev(console)]
            spec = {"driver": "virtconsole", "chardev": f"char{alias(console)}", "id": alias(console)}
            argv += ["-device", json.dumps(spec)]
        elif not (has_serial and index == 0):
            argv += ["-chardev", chardev(console)]
            spec = {"driver": "isa-serial", "chardev": f"char{alias(console)}", "id": alias(console)}
            argv += ["-device", json.dumps(spec)]
    return argv


def chardev(device: Node) -> str:
    """The ``-chardev`` of a character device."""
    kind = device.get("type", "pty")
    name = f"id=char{alias(device)}"
    path = escape(text(device, "source/@path"))
    log = escape(text(device, "log/@file"))
    logging = f",logfile={log},logappend={text(device, 'log/@append', 'on')}" if log else ""
    server = text(device, "source/@mode", "connect") == "bind"
    waiting = ",server=on,wait=off" if server else ""
    if kind in ("pty", "null"):
        return f"{kind},{name}{logging}"
    if kind == "file":
        append = text(device, "source/@append", "off")
        return f"file,{name},path={path},append={append}{logging}"
    if kind == "dev":
        return f"serial,{name},path={path}{logging}"
    if kind == "unix":
        return f"socket,{name},path={path}{waiting}{logging}"
    if kind == "tcp":
        host, port = escape(text(device, "source/@host", "127.0.0.1")), number(device, "source/@service", 0)
        telnet = ",telnet=on" if text(device, "protocol/@type") == "telnet" else ""
        return f"socket,{name},host={host},port={port}{waiting}{telnet}{logging}"
    raise unsupported(f"{device.tag!s} type='{kind}'; write pty, null, file, dev, unix or tcp")


def graphics(root: Node) -> list[str]:
    """VNC servers. QEMU itself takes the first free port where it is automatic: nobody can come in between.

    The live document gets the port once QEMU runs; the display's id is its alias.
    """
    argv: list[str] = []
    for index, device in enumerate(devices(root, "graphics")):
        if (kind := device.get("type")) != "vnc":
            raise unsupported(f"graphics type='{kind}'; write vnc")
        listen = text(device, "listen/@address") or device.get("listen") or "127.0.0.1"
        device.set("listen", listen)
        host = f"[{listen}]" if ":" in listen else listen
        option = f"{escape(host)}:{_display(device)},id={VNC_ID}{index}"
        if websocket := device.get("websocket"):
            option += f",websocket={'on' if websocket == '-1' else number(device, '@websocket', 0)}"
        if device.get("passwd"):
            option += ",password=on"
        argv += ["-vnc", option]
    return argv


def _display(device: Node) -> str:
    port = number(device, "@port", -1)
    if port < 0 or device.get("autoport") == "yes":
        return f"0,to={_VNC_LAST - _VNC_FIRST}"
    if not _VNC_FIRST <= port <= _VNC_LAST:
        raise unsupported(f"graphics port='{port}': VNC ports are {_VNC_FIRST} to {_VNC_LAST}")
    return str(port - _VNC_FIRST)


def small(root: Node, *, q35: bool) -> list[str]:
    """Video, input, memory balloon, random numbers."""
    specs: list[dict[str, Any]] = []
    argv: list[str] = []
    specs += [
        {"driver": _USB_INPUT.get(device.get("type", ""), "usb-mouse"), "id": alias(device)}
        for device in devices(root, "input")
        if device.get("bus") == "usb"
    ]
    for device in devices(root, "video"):
        model = text(device, "model/@type", "vga")
        if model == "none":
            continue
        if model not in _VIDEO:
            raise unsupported(f"video model type='{model}'; write one of {', '.join(_VIDEO)}")
        specs.append({"driver": _VIDEO[model], "id": alias(device), **pci(device, q35=q35)})
    specs += [
        {"driver": "virtio-balloon-pci", "id": alias(device), **pci(device, q35=q35)}
        for device in devices(root, "memballoon")
        if device.get("model") != "none"
    ]
    for device in devices(root, "rng"):
        source = text(device, "backend") or "/dev/urandom"
        name = f"obj{alias(device)}"
        argv += ["-object", json.dumps({"qom-type": "rng-random", "id": name, "filename": source})]
        specs.append({"driver": "virtio-rng-pci", "rng": name, "id": alias(device), **pci(device, q35=q35)})
    for spec in specs:
        argv += ["-device", json.dumps(spec)]
    return argv
