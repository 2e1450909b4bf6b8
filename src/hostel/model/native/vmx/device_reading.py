"""Shared folders, network cards and ports of a ``.vmx`` file (``virVMXParseEthernet`` and its siblings)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from hostel.model.domain.devices.character import (
    CharacterSource,
    CharacterType,
    Parallel,
    ParallelTarget,
    Serial,
    SerialTarget,
)
from hostel.model.domain.devices.filesystem import Filesystem, FilesystemSource
from hostel.model.domain.devices.interface import Interface, InterfaceSource, InterfaceTarget, InterfaceType, Mac
from hostel.model.native.completing import NO_MAC
from hostel.model.native.settings import refused
from hostel.model.native.vmx.entries import Entries
from hostel.model.native.vmx.filename import FileNames

_MODELS: Final = ("vlance", "vmxnet", "vmxnet3", "e1000", "e1000e")
_MORE_FEATURES: Final = 15  # what makes a vmxnet a vmxnet2
_MAC: Final = re.compile(r"[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}")
_PROTOCOLS: Final = {
    "": "raw", "tcp": "raw", "tcp4": "raw", "tcp6": "raw", "telnet": "telnet", "telnets": "telnets", "ssl": "tls",
    "tcp+ssl": "tls", "tcp4+ssl": "tls", "tcp6+ssl": "tls",
}  # fmt: skip


def _numbers(entries: Entries, kind: str) -> list[int]:
    """Which numbers there are of ``kind0.…``, ``kind1.…``."""
    found = (re.match(rf"{kind}([0-9]{{1,6}})\.", name) for name in entries.names())
    return sorted({int(match[1]) for match in found if match is not None})


def read_filesystems(entries: Entries) -> list[Filesystem]:
    """Read folders of the host that the guest sees."""
    if entries.boolean("isolation.tools.hgfs.disable", default=True):
        return []
    count = entries.number("sharedFolder.maxNum", 0)
    folders: list[Filesystem] = []
    for number in _numbers(entries, "sharedfolder"):
        prefix = f"sharedFolder{number}"
        is_there = entries.boolean(f"{prefix}.present", default=False)
        if number >= count or not (entries.boolean(f"{prefix}.enabled", default=False) and is_there):
            continue
        folders.append(
            Filesystem(
                type="mount",
                source=FilesystemSource(dir=entries.needed_text(f"{prefix}.hostPath")),
                target=entries.needed_text(f"{prefix}.guestName"),
                readonly=not entries.boolean(f"{prefix}.writeAccess", default=False),
            )
        )
    return folders


def read_interfaces(entries: Entries) -> list[Interface]:
    """Read network cards."""
    for name in entries.names():
        if name.startswith("ethernet") and not re.match(r"ethernet[0-9]{1,6}\.", name):
            raise refused(name, "failed to parse the index of the VMX key")
    prefixes = [f"ethernet{number}" for number in _numbers(entries, "ethernet")]
    return [_interface(entries, prefix) for prefix in prefixes if entries.boolean(f"{prefix}.present", default=False)]


def _interface(entries: Entries, prefix: str) -> Interface:
    entries.boolean(f"{prefix}.startConnected", default=True)
    interface = Interface(mac=_mac(entries, prefix), model=_model(entries, prefix))
    kind = entries.text(f"{prefix}.connectionType")
    words = None if kind is None else kind.lower()
    network = None
    if words in (None, "bridged", "custom"):
        name = f"{prefix}.networkName"
        network = entries.text(name) if words is None else entries.needed_text(name)
    device = entries.needed_text(f"{prefix}.vnet") if words == "custom" else None
    switch = entries.uuid(f"{prefix}.dvs.switchId")
    if switch is not None:
        interface.type, interface.source = InterfaceType.VDS, _port(entries, f"{prefix}.dvs", switch)
    elif words is None and network is None:
        interface.type = InterfaceType.NULL
    elif words in (None, "bridged", "custom"):
        interface.type, interface.source = InterfaceType.BRIDGE, InterfaceSource(bridge=network)
        interface.target = InterfaceTarget(dev=device) if device is not None else None
    elif words == "nat":
        interface.type = InterfaceType.USER
    elif words == "hostonly":
        raise refused(f"{prefix}.connectionType", f"a document has nothing that '{kind}' is")
    else:
        raise refused(f"{prefix}.connectionType", f"Invalid value '{kind}'")
    return interface


def _port(entries: Entries, prefix: str, switch: str) -> InterfaceSource:
    """A port of a distributed switch."""
    return InterfaceSource(
        switchid=switch,
        portid=str(entries.needed_number(f"{prefix}.portId")),
        portgroupid=entries.needed_text(f"{prefix}.portgroupId"),
        connectionid=str(entries.needed_number(f"{prefix}.connectionId")),
    )


def _mac(entries: Entries, prefix: str) -> Mac:
    kind = entries.text(f"{prefix}.addressType")
    words = (kind or "generated").lower()
    if words not in ("generated", "vpx", "static"):
        reason = f"Expecting 'generated' or 'static' or 'vpx' but found '{kind}'"
        raise refused(f"{prefix}.addressType", reason)
    name = f"{prefix}.address" if words == "static" else f"{prefix}.generatedAddress"
    address = (entries.text(name) or NO_MAC).lower()
    if not _MAC.fullmatch(address):
        raise refused(name, f"Expecting a MAC address but found '{address}'")
    mac = Mac(address=":".join(part.zfill(2) for part in address.split(":")))
    if kind is not None:
        mac.type = "static" if words == "static" else "generated"
    check = entries.text(f"{prefix}.checkMACAddress")
    if check is not None:
        mac.check = check == "true"
    return mac


def _model(entries: Entries, prefix: str) -> str | None:
    name = f"{prefix}.virtualDev"
    model = entries.text(name)
    features = entries.number(f"{prefix}.features", 0)
    if model is None:
        return None
    model = model.lower()
    if model not in _MODELS:
        known = "' or '".join(_MODELS)
        raise refused(name, f"Expecting '{known}' but found '{model}'")
    return "vmxnet2" if model == "vmxnet" and features == _MORE_FEATURES else model


def read_serials(entries: Entries, names: FileNames) -> list[Serial]:
    """Read serial ports."""
    numbers = [number for number in range(4) if entries.boolean(f"serial{number}.present", default=False)]
    return [_serial(entries, names, number) for number in numbers]


def _serial(entries: Entries, names: FileNames, number: int) -> Serial:
    prefix = f"serial{number}"
    entries.boolean(f"{prefix}.startConnected", default=True)
    kind = entries.text(f"{prefix}.fileType") or "device"
    file = entries.text(f"{prefix}.fileName")
    serial = Serial(type=CharacterType.DEV, target=SerialTarget(port=number))
    match kind.lower():
        case "device":
            pass
        case "file":
            serial.type = CharacterType.FILE
            file = names.read(entries.needed_text(f"{prefix}.fileName"), may_be_missing=False)
        case "pipe":
            serial.type = CharacterType.PIPE
        case "network":
            _read_network(entries, prefix, serial)
            return serial
        case _:
            reason = f"Expecting 'device', 'file' or 'pipe' or 'network' but found '{kind}'"
            raise refused(f"{prefix}.fileType", reason)
    serial.sources = [CharacterSource(path=file)]
    return serial


def _read_network(entries: Entries, prefix: str, serial: Serial) -> None:
    name = f"{prefix}.fileName"
    url = entries.needed_text(name)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refused(name, f"'{url}' is no address") from None
    if not port:
        raise refused(name, "doesn't contain a port part")
    protocol = _PROTOCOLS.get(parts.scheme)
    if protocol is None:
        raise refused(name, f"contains unsupported scheme '{parts.scheme}'")
    end = entries.text(f"{prefix}.network.endPoint") or "server"
    if end.lower() not in ("server", "client"):
        raise refused(f"{prefix}.network.endPoint", f"Expecting 'server' or 'client' but found '{end}'")
    serial.type, serial.protocol = CharacterType.TCP, protocol
    mode = "bind" if end.lower() == "server" else "connect"
    serial.sources = [CharacterSource(mode=mode, host=parts.hostname or "", service=str(port))]


def read_parallels(entries: Entries, names: FileNames) -> list[Parallel]:
    """Read parallel ports."""
    ports: list[Parallel] = []
    for number in range(3):
        prefix = f"parallel{number}"
        entries.boolean(f"{prefix}.startConnected", default=True)
        if not entries.boolean(f"{prefix}.present", default=False):
            continue
        kind = entries.needed_text(f"{prefix}.fileType")
        file: str | None = entries.needed_text(f"{prefix}.fileName")
        if kind.lower() not in ("device", "file"):
            raise refused(f"{prefix}.fileType", f"Expecting 'device' or 'file' but found '{kind}'")
        port = Parallel(type=CharacterType.DEV, target=ParallelTarget(port=number))
        if kind.lower() == "file":
            port.type, file = CharacterType.FILE, names.read(file or "", may_be_missing=False)
        port.sources = [CharacterSource(path=file)]
        ports.append(port)
    return ports
