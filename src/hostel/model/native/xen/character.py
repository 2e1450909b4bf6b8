"""Ports of Xen's configuration, which are written as QEMU of old writes them (``xenParseSxprChar``)."""

from __future__ import annotations

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.character import (
    CharacterBackend,
    CharacterSource,
    CharacterType,
    Parallel,
    ParallelTarget,
    Serial,
    SerialTarget,
)
from hostel.model.native.settings import refused

_BARE = (CharacterType.NULL, CharacterType.STDIO, CharacterType.VC, CharacterType.PTY)


def read_serial(text: str, port: int) -> Serial:
    """Read a serial port.

    Raises:
        ModelError: it is none.
    """
    serial = Serial(target=SerialTarget(port=port))
    _read("serial", text, serial)
    return serial


def read_parallel(text: str) -> Parallel:
    """Read a parallel port.

    Raises:
        ModelError: it is none.
    """
    parallel = Parallel(target=ParallelTarget(port=0))
    _read("parallel", text, parallel)
    return parallel


def _read(name: str, text: str, device: CharacterBackend) -> None:
    if text.startswith("/"):
        device.type, device.sources = CharacterType.DEV, [CharacterSource(path=text)]
        return
    kind, _, value = text.partition(":")
    is_telnet = kind.startswith("telnet")
    try:
        device.type = CharacterType.TCP if is_telnet else CharacterType(kind)
    except ValueError:
        raise refused(name, f"unknown chr device type '{kind}'") from None
    match device.type:
        case CharacterType.FILE | CharacterType.PIPE:
            device.sources = [CharacterSource(path=value)]
        case CharacterType.TCP:
            address, _, options = value.partition(",")
            host, colon, service = address.partition(":")
            if not colon:
                raise refused(name, "malformed char device string")
            mode = "bind" if "server" in options.split(",") else "connect"
            device.protocol = "telnet" if is_telnet else "raw"
            device.sources = [CharacterSource(mode=mode, host=host or None, service=service)]
        case CharacterType.UDP:
            device.sources = _udp(name, value)
        case CharacterType.UNIX:
            path, _, options = value.partition(",")
            mode = "bind" if "server" in options.split(",") else "connect"
            device.sources = [CharacterSource(mode=mode, path=path)]


def _udp(name: str, value: str) -> list[CharacterSource]:
    """Where packets go, and where they come from: ``HOST:SERVICE@HOST:SERVICE``."""
    there, at, here = value.partition("@")
    host, colon, service = there.partition(":")
    if not colon or (at and ":" not in here):
        raise refused(name, "malformed char device string")
    connect = CharacterSource(mode="connect", host=host or None, service=service)
    if not at:
        return [connect]
    host, _, service = here.partition(":")
    return [CharacterSource(mode="bind", host=host or None, service=service or None), connect]


def write_character(path: str, device: CharacterBackend) -> str:
    """Write a port.

    Raises:
        ModelError: Xen has none of this type.
    """
    source = device.source or CharacterSource()
    place = f"{source.host or ''}:{source.service or ''}"
    kind = device.type
    if kind in _BARE:
        return kind.value
    match kind:
        case CharacterType.FILE | CharacterType.PIPE:
            return f"{kind.value}:{source.path or ''}"
        case CharacterType.DEV:
            return source.path or ""
        case CharacterType.TCP:
            ending = ",server,nowait" if source.mode == "bind" else ""
            protocol = "tcp" if device.protocol in (None, "raw") else "telnet"
            return f"{protocol}:{place}{ending}"
        case CharacterType.UDP:
            ends = {item.mode: f"{item.host or ''}:{item.service or ''}" for item in device.sources}
            return f"udp:{ends.get('connect', ':')}@{ends.get('bind', ':')}"
        case CharacterType.UNIX:
            return f"unix:{source.path or ''}" + (",server,nowait" if source.mode == "bind" else "")
    raise ModelError(path, f"unsupported chr device type '{kind}'", code=ErrorCode.CONFIG_UNSUPPORTED)
