"""Character devices: what is at the host's end, and the port in the guest (``qemuBuildChrDeviceCommandLine``)."""

from __future__ import annotations

from typing import Final

from hostel.drivers.qemu.command.context import Context, alias_of, escape, option
from hostel.drivers.qemu.command.objects import with_passphrase
from hostel.drivers.qemu.command.place import place
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.address import VirtioSerialAddress
from hostel.model.domain.devices.character import (
    Channel,
    CharacterBackend,
    CharacterSource,
    CharacterType,
    Console,
    Parallel,
    Serial,
    SerialTarget,
)
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller

# What a kind of port is where no model is named, and the models that are devices; others are parts of the board.
_SERIALS: Final = {
    "isa-serial": "isa-serial", "pci-serial": "pci-serial", "usb-serial": "usb-serial", "spapr-vio-serial": "spapr-vty",
    "sclp-serial": "sclpconsole", "isa-debug": "isa-debugcon",
}  # fmt: skip
_SERIAL_DEVICES: Final = (*_SERIALS.values(), "sclplmconsole")
_SYSTEM_CONSOLES: Final = {"sclp": "sclpconsole", "sclplm": "sclplmconsole"}  # of s390x
_SERIAL_PARTS: Final = ("pl011", "16550a")

_SPICE_AGENTS: Final = (CharacterType.SPICEVMC, CharacterType.QEMU_VDAGENT)  # whose guests look for one name
CERTIFICATES: Final = "chardev"  # what the context calls their folder
# What SPICE calls the channels of devices.
_SPICE_PORTS: Final = {"redirdev": "usbredir", "smartcard": "smartcard"}


def arguments(domain: Domain, context: Context) -> list[str]:
    """Serial and parallel ports, consoles and channels; a console on a serial port is that port."""
    devices = domain.devices
    groups = (devices.serials, devices.parallels, devices.channels, devices.consoles)
    return [word for group in groups for device in group for word in one(domain, device, context)]


def one(domain: Domain, device: Serial | Parallel | Channel | Console, context: Context) -> list[str]:
    """A port, a console or a channel.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: QEMU, or this driver, has no such thing.
    """
    match device:
        case Serial():
            return [*chardev(device, context), *_serial(domain, device)]
        case Parallel():
            return [*chardev(device, context), *_parallel(device)]
        case Channel():
            return _channel(domain, device, context)
        case Console():
            return _console(domain, device, context)


def _parallel(parallel: Parallel) -> list[str]:
    spec = {"driver": "isa-parallel", "chardev": f"char{alias_of(parallel)}", "id": alias_of(parallel)}
    return option("-device", spec)


def _serial(domain: Domain, serial: Serial) -> list[str]:
    target = serial.target or SerialTarget()
    driver = target.model or _SERIALS.get(target.type or "isa-serial")
    if driver in _SERIAL_PARTS or (driver is None and target.type == "system-serial"):
        return ["-serial", f"chardev:char{alias_of(serial)}"]
    if driver not in _SERIAL_DEVICES:
        kinds = ", ".join(_SERIALS)
        raise unsupported(f"serial '{alias_of(serial)}': target type '{target.type}'; write one of {kinds}")
    index = target.port if driver == "isa-serial" else None
    spec = {"driver": driver, "chardev": f"char{alias_of(serial)}", "id": alias_of(serial), "index": index}
    return option("-device", {**spec, **place(domain, serial)})


def _virtio_port(domain: Domain, device: Channel | Console) -> dict[str, object]:
    address = device.address
    if not isinstance(address, VirtioSerialAddress):
        return {}
    controller = find_controller(domain, ControllerType.VIRTIO_SERIAL, address.controller)
    if controller is None:
        raise unsupported(f"'{alias_of(device)}': there is no virtio-serial controller {address.controller}")
    return {"bus": f"{alias_of(controller)}.{address.bus}", "nr": address.port}


def _console(domain: Domain, console: Console, context: Context) -> list[str]:
    kind = console.target.type if console.target is not None else None
    if kind == "serial":
        return []
    if kind in _SYSTEM_CONSOLES:
        end = {"chardev": f"char{alias_of(console)}", "id": alias_of(console)}
        return [*chardev(console, context), *option("-device", {"driver": _SYSTEM_CONSOLES[kind], **end})]
    if kind != "virtio":
        raise unsupported(f"console '{alias_of(console)}': target type '{kind}'; write serial or virtio")
    spec = {"driver": "virtconsole", **_virtio_port(domain, console)}
    rest = {"chardev": f"char{alias_of(console)}", "id": alias_of(console)}
    return [*chardev(console, context), *option("-device", {**spec, **rest})]


def _channel(domain: Domain, channel: Channel, context: Context) -> list[str]:
    target = channel.target
    if target is not None and target.type == "guestfwd":
        forward = {"str": f"tcp:{target.address}:{target.port}-chardev:char{alias_of(channel)}"}
        spec: dict[str, object] = {"type": "user", "guestfwd": [forward], "id": alias_of(channel)}
        return [*chardev(channel, context), *option("-netdev", spec)]
    if target is None or target.type != "virtio":
        raise unsupported(f"channel '{alias_of(channel)}': write <target type='virtio' name='…'/>")
    if channel.type == CharacterType.UNIX and channel.source is None:
        path = str(context.monitor.parent / alias_of(channel))
        channel.sources = [CharacterSource(mode="bind", path=path)]
    spec = {"driver": "virtserialport", **_virtio_port(domain, channel)}
    name = target.name or ("com.redhat.spice.0" if channel.type in _SPICE_AGENTS else None)
    rest = {"chardev": f"char{alias_of(channel)}", "id": alias_of(channel), "name": name}
    return [*chardev(channel, context), *option("-device", {**spec, **rest})]


def chardev(device: CharacterBackend, context: Context) -> list[str]:
    """The ``-chardev`` of a character device, after the certificates that it needs.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: QEMU, or this driver, has no such end, or there are no certificates.
    """
    source = device.source
    settings = context.settings.character
    by_default = settings.default and device.type == CharacterType.TCP
    if source is None or not (by_default if source.tls is None else source.tls):
        return [*_outputs(device, context), "-chardev", _chardev(device, context)]
    if device.type != CharacterType.TCP:
        raise unsupported(f"{device.TAG} type='{device.type}': tls='yes' is for type='tcp' only")
    folder = context.certificates.get(CERTIFICATES)
    if folder is None:
        raise unsupported(
            f"{device.TAG} '{alias_of(device)}': tls='yes', and there are no certificates; QEMU reads ca-cert.pem and "
            "server-cert.pem, server-key.pem (mode='bind') or client-cert.pem, client-key.pem (mode='connect') in "
            "pki/qemu of this connection's configuration, /etc/pki/libvirt-chardev or /etc/pki/qemu"
        )
    name = f"objchar{alias_of(device)}_tls0"
    end = "server" if source.mode == "bind" else "client"
    verify = settings.verify or end == "client"
    spec = {"qom-type": "tls-creds-x509", "id": name, "dir": folder, "endpoint": end, "verify-peer": verify}
    given = [*_outputs(device, context), *with_passphrase(spec, settings.secret, context)]
    return [*given, "-chardev", f"{_chardev(device, context)},tls-creds={name}"]


def _outputs(device: CharacterBackend, context: Context) -> list[str]:
    """The descriptors that the device writes to in place of files."""
    argv: list[str] = []
    for name in (f"{alias_of(device)}-source", f"{alias_of(device)}-log"):
        found = context.outputs.get(name)
        if found is not None and found.file is not None:
            argv += ["-add-fd", f"set={found.set},fd={found.file},opaque={name}"]
    return argv


def _written(name: str, path: str, append: bool | None, context: Context) -> tuple[str, str]:
    """What QEMU is to write to, and whether it keeps what is there (``qemuBuildChardevStr``)."""
    found = context.outputs.get(name)
    return (escape(path), "on" if append else "off") if found is None else (found.path, "on")


def _chardev(device: CharacterBackend, context: Context) -> str:
    kind, source = device.type, device.source or CharacterSource()
    name = f"id=char{alias_of(device)}"
    path = escape(source.path or "")
    logging = ""
    if device.log is not None:
        file, append = _written(f"{alias_of(device)}-log", device.log.file, device.log.append, context)
        logging = f",logfile={file},logappend={append}"
    waiting = ",server=on,wait=off" if source.mode == "bind" else ""
    if source.reconnect is not None and source.reconnect.enabled:
        waiting += f",reconnect={source.reconnect.timeout or 0}"
    match kind:
        case CharacterType.PTY | CharacterType.NULL | CharacterType.VC | CharacterType.STDIO:
            return f"{kind},{name}{logging}"
        case CharacterType.SPICEVMC:
            return f"spicevmc,{name},name={_SPICE_PORTS.get(device.TAG, 'vdagent')}{logging}"
        case CharacterType.QEMU_VDAGENT:
            given = (
                ("clipboard", source.clipboard),
                ("mouse", None if source.mouse is None else source.mouse == "client"),
            )
            words = "".join(f",{key}={'on' if value else 'off'}" for key, value in given if value is not None)
            return f"qemu-vdagent,{name},name=vdagent{words}{logging}"
        case CharacterType.DBUS:
            return f"dbus,{name},name={escape(source.channel or '')}{logging}"
        case CharacterType.SPICEPORT:
            return f"spiceport,{name},name={escape(source.channel or '')}{logging}"
        case CharacterType.FILE:
            path, append = _written(f"{alias_of(device)}-source", source.path or "", source.append, context)
            return f"file,{name},path={path},append={append}{logging}"
        case CharacterType.DEV:
            return f"{'parallel' if device.TAG == 'parallel' else 'serial'},{name},path={path}{logging}"
        case CharacterType.PIPE:
            return f"pipe,{name},path={path}{logging}"
        case CharacterType.UNIX:
            return f"socket,{name},path={path}{waiting}{logging}"
        case CharacterType.TCP:
            telnet = ",telnet=on" if device.protocol == "telnet" else ""
            if device.protocol not in (None, "raw", "telnet"):
                raise unsupported(f"{device.TAG}: protocol type='{device.protocol}'; write raw or telnet")
            host, port = escape(source.host or "127.0.0.1"), escape(source.service or "0")
            return f"socket,{name},host={host},port={port}{waiting}{telnet}{logging}"
        case CharacterType.UDP:
            return f"udp,{name}{_udp(device)}{logging}"
        case _:
            raise unsupported(
                f"{device.TAG} type='{kind}'; write pty, null, file, dev, pipe, unix, tcp, udp, vc, stdio, dbus, "
                "qemu-vdagent, spicevmc or spiceport"
            )


def _udp(device: CharacterBackend) -> str:
    ends = {source.mode: source for source in device.sources}
    there, here = ends.get("connect", CharacterSource()), ends.get("bind", CharacterSource())
    text = f",host={escape(there.host or '')},port={escape(there.service or '0')}"
    return f"{text},localaddr={escape(here.host or '')},localport={escape(here.service or '0')}"
