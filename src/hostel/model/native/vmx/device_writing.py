"""Shared folders, network cards and ports for a ``.vmx`` file (``virVMXFormatEthernet`` and its siblings)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.character import CharacterType, Parallel, Serial
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.domain.domain import Domain
from hostel.model.native.completing import NO_MAC
from hostel.model.native.vmx.entries import EntryWriter, format_uuid
from hostel.model.native.vmx.filename import FileNames

_MODELS: Final = ("vlance", "vmxnet", "vmxnet2", "vmxnet3", "e1000", "e1000e")
_MORE_CARDS: Final = 7  # virtualHW.version
_PROTOCOLS: Final = {"raw": "tcp", "telnet": "telnet", "telnets": "telnets", "tls": "ssl"}


def _unsupported(domain: Domain, device: object, reason: str) -> ModelError:
    assert isinstance(device, Interface | Serial | Parallel)
    return ModelError(domain.devices.path(device), reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def write_filesystems(domain: Domain, writer: EntryWriter) -> None:
    """Write folders of the host.

    Raises:
        ModelError: one is no folder.
    """
    folders = domain.devices.filesystems
    if folders:
        writer.add("isolation.tools.hgfs.disable", False)
        writer.add("sharedFolder.maxNum", len(folders))
    for number, folder in enumerate(folders):
        if folder.type != "mount":
            path = domain.devices.path(folder)
            reason = "Only 'mount' filesystem type is supported"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        prefix = f"sharedFolder{number}"
        writer.add(f"{prefix}.present", True)
        writer.add(f"{prefix}.enabled", True)
        writer.add(f"{prefix}.readAccess", True)
        writer.add(f"{prefix}.writeAccess", not folder.readonly)
        writer.add(f"{prefix}.hostPath", (folder.source.dir if folder.source is not None else None) or "")
        writer.add(f"{prefix}.guestName", folder.target or "")


def write_interfaces(domain: Domain, version: int, writer: EntryWriter) -> None:
    """Write network cards.

    Raises:
        ModelError: there are too many, or one is none that VMware has.
    """
    most = 10 if version >= _MORE_CARDS else 4
    for number, interface in enumerate(domain.devices.interfaces):
        if number >= most:
            path = domain.devices.path(interface)
            raise ModelError(path, f"Ethernet controller index {number} out of [0..{most - 1}] range")
        prefix = f"ethernet{number}"
        writer.add(f"{prefix}.present", True)
        _write_model(domain, interface, prefix, writer)
        _write_connection(domain, interface, prefix, writer)
        _write_mac(interface, prefix, writer)


def _write_model(domain: Domain, interface: Interface, prefix: str, writer: EntryWriter) -> None:
    model = interface.model
    if model is None:
        return
    if model not in _MODELS:
        known = "' or '".join(_MODELS)
        path = f"{domain.devices.path(interface)}/model/@type"
        raise ModelError(path, f"Expecting '{known}' but found '{model}'")
    writer.add(f"{prefix}.virtualDev", "vmxnet" if model == "vmxnet2" else model)
    if model == "vmxnet2":
        writer.add(f"{prefix}.features", 15)


def _write_connection(domain: Domain, interface: Interface, prefix: str, writer: EntryWriter) -> None:
    source = interface.source
    match interface.type:
        case InterfaceType.BRIDGE:
            if source is None or source.bridge is None:
                raise _unsupported(domain, interface, "it has no bridge")
            writer.add(f"{prefix}.networkName", source.bridge)
            device = interface.target.dev if interface.target is not None else None
            writer.add(f"{prefix}.connectionType", "custom" if device is not None else "bridged")
            if device is not None:
                writer.add(f"{prefix}.vnet", device)
        case InterfaceType.USER:
            writer.add(f"{prefix}.connectionType", "nat")
        case InterfaceType.NULL:
            pass
        case InterfaceType.VDS if source is not None and source.switchid is not None:
            writer.add(f"{prefix}.dvs.switchId", format_uuid(source.switchid))
            writer.add(f"{prefix}.dvs.portId", source.portid or 0)
            writer.add(f"{prefix}.dvs.portgroupId", source.portgroupid or "")
            writer.add(f"{prefix}.dvs.connectionId", source.connectionid or 0)
        case _:
            raise _unsupported(domain, interface, f"Unsupported net type '{interface.type}'")


def _write_mac(interface: Interface, prefix: str, writer: EntryWriter) -> None:
    """Write the hardware address, and whose it is; by its range where the document does not say it."""
    mac = interface.mac
    address = mac.address if mac is not None else NO_MAC
    company, own = (int(part.replace(":", ""), 16) for part in (address[:8], address[9:]))
    is_static, check, is_of_server = True, None, False
    if company == 0x000C29:
        is_static = False
    elif company == 0x005056 and 0x800000 <= own <= 0xBFFFFF:
        is_static, is_of_server = False, True
    elif company != 0x005056 or own > 0x3FFFFF:
        check = False
    if mac is not None and mac.type is not None:
        is_static = mac.type == "static"
        check = check if is_static else None
    if mac is not None and mac.check is not None:
        check = mac.check
    if is_static:
        writer.add(f"{prefix}.addressType", "static")
        writer.add(f"{prefix}.address", address)
    else:
        writer.add(f"{prefix}.addressType", "vpx" if is_of_server else "generated")
        writer.add(f"{prefix}.generatedAddress", address)
        if not is_of_server:
            writer.add(f"{prefix}.generatedAddressOffset", 0)
    if check is not None:
        writer.add(f"{prefix}.checkMACAddress", check)


def write_serials(domain: Domain, names: FileNames, writer: EntryWriter) -> None:
    """Write serial ports.

    Raises:
        ModelError: one is none that VMware has.
    """
    for serial in domain.devices.serials:
        number = serial.target.port if serial.target is not None and serial.target.port is not None else 0
        if number > 3:
            raise _unsupported(domain, serial, f"Serial port index {number} out of [0..3] range")
        prefix = f"serial{number}"
        source = serial.source
        path = (source.path if source is not None else None) or ""
        writer.add(f"{prefix}.present", True)
        match serial.type:
            case CharacterType.DEV:
                writer.add(f"{prefix}.fileType", "device")
                writer.add(f"{prefix}.fileName", path)
            case CharacterType.FILE:
                writer.add(f"{prefix}.fileType", "file")
                writer.add(f"{prefix}.fileName", names.write(path))
            case CharacterType.PIPE:
                writer.add(f"{prefix}.fileType", "pipe")
                writer.add(f"{prefix}.pipe.endPoint", "client")
                writer.add(f"{prefix}.tryNoRxLoss", False)
                writer.add(f"{prefix}.fileName", path)
            case CharacterType.TCP if source is not None:
                protocol = _PROTOCOLS[serial.protocol or "raw"]
                writer.add(f"{prefix}.fileType", "network")
                writer.add(f"{prefix}.fileName", f"{protocol}://{source.host or ''}:{source.service or ''}")
                writer.add(f"{prefix}.network.endPoint", "server" if source.mode == "bind" else "client")
            case _:
                raise _unsupported(domain, serial, f"Unsupported character device type '{serial.type}'")
        writer.add(f"{prefix}.yieldOnMsrRead", True)


def write_parallels(domain: Domain, names: FileNames, writer: EntryWriter) -> None:
    """Write parallel ports.

    Raises:
        ModelError: one is none that VMware has.
    """
    for parallel in domain.devices.parallels:
        number = parallel.target.port if parallel.target is not None and parallel.target.port is not None else 0
        if number > 2:
            raise _unsupported(domain, parallel, f"Parallel port index {number} out of [0..2] range")
        prefix = f"parallel{number}"
        path = (parallel.source.path if parallel.source is not None else None) or ""
        if parallel.type not in (CharacterType.DEV, CharacterType.FILE):
            raise _unsupported(domain, parallel, f"Unsupported character device type '{parallel.type}'")
        is_file = parallel.type == CharacterType.FILE
        writer.add(f"{prefix}.present", True)
        writer.add(f"{prefix}.fileType", "file" if is_file else "device")
        writer.add(f"{prefix}.fileName", names.write(path) if is_file else path)
