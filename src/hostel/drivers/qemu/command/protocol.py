"""Where an image's bytes are, as QEMU's protocol drivers are told (``qemuBlockStorageSourceGetBackendProps``)."""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import stat
from collections.abc import Callable
from typing import Any, Final

from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.disk import Disk, DiskDevice
from hostel.model.domain.devices.source import DiskSource, Host, Identity, NvmeAddress, SourceType

SHARED_HELPER: Final = "pr-helper0"  # the object that speaks to the helper of disks whose reservations are managed
_CURL: Final = ("http", "https", "ftp", "ftps", "tftp")
_PORTS: Final = {
    "nbd": "10809", "rbd": "0", "sheepdog": "7000", "gluster": "24007", "iscsi": "3260", "http": "80", "https": "443",
    "ftp": "21", "ftps": "990", "tftp": "69", "ssh": "22", "vxhs": "9999", "nfs": "2049",
}  # fmt: skip
_CDROM_MAJOR: Final = 11  # Linux, devices.txt: SCSI CD-ROMs
_GLUSTER_LOG_LEVEL: Final = 4
Index = int | str | None  # an image's number; a word for what is no disk's, such as ``pflash1``


def storage_node(index: Index) -> str:
    """The name of the node of where an image's bytes are."""
    return f"libvirt-{index}-storage"


def slice_node(index: Index) -> str:
    """The name of the node of that part of a storage which is an image, where the format's own node is no such."""
    return f"libvirt-{index}-slice-sto"


def format_node(index: Index) -> str:
    """The name of the node of an image's format, by the image's number; programs know it from libvirt."""
    return f"libvirt-{index}-format"


def authentication_secret(index: Index) -> str:
    """The name of the object with what opens a server."""
    return f"{storage_node(index)}-auth-secret0"


def cookie_secret(index: Index) -> str:
    """The name of the object with the cookies of an HTTP server."""
    return f"{storage_node(index)}-httpcookie-secret0"


def encryption_secret(index: Index) -> str:
    """The name of the object with an image's passphrase."""
    return f"{format_node(index)}-encryption-secret0"


def credentials(index: Index) -> str:
    """The name of the object with a TLS client's certificates."""
    return f"obj{storage_node(index)}_tls0"


def reservation_manager(source: DiskSource, index: Index) -> str | None:
    """The name of the object that speaks to the helper for persistent reservations; None where there is none."""
    if source.reservations is None:
        return None
    return SHARED_HELPER if source.reservations.managed else f"pr-helper-{storage_node(index)}"


def protocol(disk: Disk, kind: SourceType, source: DiskSource, index: Index) -> dict[str, Any]:
    """The driver, and what it is told of where the bytes are.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED`` or ``XML_ERROR`` for what QEMU cannot open.
    """
    io = disk.driver.io if disk.driver is not None else None
    own = {"aio": None if io == "default" else io, "pr-manager": reservation_manager(source, index)}
    match kind:
        case SourceType.FILE:
            return {"driver": "file", "filename": _given(source, index) or source.file, **own}
        case SourceType.BLOCK:
            is_optical = disk.device == DiskDevice.CDROM and _is_optical(source.dev or "")
            return {
                "driver": "host_cdrom" if is_optical else "host_device",
                "filename": _given(source, index) or source.dev,
                **own,
            }
        case SourceType.DIR:
            is_floppy = disk.device == DiskDevice.FLOPPY
            return {"driver": "vvfat", "dir": source.dir, "floppy": is_floppy, "rw": not disk.readonly}
        case SourceType.NVME:
            place = source.address or NvmeAddress()
            device = f"{place.domain:04x}:{place.bus:02x}:{place.slot:02x}.{place.function:x}"
            return {"driver": "nvme", "device": device, "namespace": source.namespace}
        case SourceType.NETWORK:
            return _network(disk, source, index)
        case _:
            raise unsupported(f"disk '{disk.target.dev}': type='{kind}'")


def file_set(index: Index) -> int:
    """The number of the set of descriptors that stands for an image."""
    return int(index or 0)


def _given(source: DiskSource, index: Index) -> str | None:
    """The name by which QEMU opens one of the descriptors that stand for an image."""
    return None if source.fdgroup is None else f"/dev/fdset/{file_set(index)}"


def _is_optical(path: str) -> bool:
    """Whether a device is a CD-ROM drive; of one that is not there, its name tells."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return path.startswith("/dev/cdrom")
    return stat.S_ISBLK(found.st_mode) and os.major(found.st_rdev) == _CDROM_MAJOR


def _network(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    name = source.protocol
    makers: dict[str, Callable[[Disk, DiskSource, Index], dict[str, Any]]] = {
        **dict.fromkeys(_CURL, _curl),
        "nbd": _nbd, "iscsi": _iscsi, "rbd": _rbd, "gluster": _gluster, "nfs": _nfs, "ssh": _ssh,
        "sheepdog": _sheepdog, "vxhs": _vxhs,
    }  # fmt: skip
    if name not in makers:
        raise unsupported(f"disk '{disk.target.dev}': protocol='{name}'; write one of {', '.join(sorted(makers))}")
    if name != "rbd" and not source.hosts:
        raise _no_host(disk)
    return {"driver": name, **makers[name](disk, source, index)}


def _no_host(disk: Disk) -> VirtError:
    return VirtError(
        ErrorCode.XML_ERROR, f"XML error: disk '{disk.target.dev}': <source> has no <host name=…> or <host socket=…>"
    )


def _port(source: DiskSource, host: Host) -> str:
    return host.port or _PORTS[source.protocol or ""]


def _server(disk: Disk, source: DiskSource, host: Host) -> dict[str, Any]:
    """A server's address or socket."""
    if host.transport == "unix":
        if not host.socket:
            raise _no_host(disk)
        return {"type": "unix", "path": host.socket}
    return {"type": "inet", **_inet(disk, source, host)}


def _inet(disk: Disk, source: DiskSource, host: Host) -> dict[str, Any]:
    """A server's name and port."""
    if host.transport not in (None, "tcp"):
        raise unsupported(f"disk '{disk.target.dev}': transport='{host.transport}' of protocol '{source.protocol}'")
    if not host.name:
        raise _no_host(disk)
    return {"host": host.name, "port": _port(source, host)}


def _literal(host: str) -> str:
    """A host as it stands in a URL."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def _user(disk: Disk, source: DiskSource) -> str | None:
    """Who we are to the server."""
    found = source.auth or (disk.auth if disk.source is source else None)
    return found.username if found is not None else None


def _nbd(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    tls = credentials(index) if source.tls else None
    server = _server(disk, source, source.hosts[0])
    return {"server": server, "export": source.name or None, "tls-creds": tls, "tls-hostname": source.tls_hostname}


def _curl(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    place = _inet(disk, source, source.hosts[0])
    query = f"?{source.query}" if source.query else ""
    path = (source.name or "").removeprefix("/")
    user = _user(disk, source)
    return {
        "url": f"{source.protocol}://{_literal(place['host'])}:{place['port']}/{path}{query}",
        "username": user,
        "password-secret": None if user is None else authentication_secret(index),
        "sslverify": source.ssl_verify,
        "cookie-secret": None if source.cookies is None else cookie_secret(index),
        "timeout": source.timeout or None,
        "readahead": source.readahead or None,
    }


def _iscsi(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    place = _inet(disk, source, source.hosts[0])
    target, _, unit = (source.name or "").partition("/")
    unit = unit or "0"
    if not (unit.isascii() and unit.isdecimal()):
        raise unsupported(f"disk '{disk.target.dev}': '{unit}' after the target's name is no number of a unit")
    user = _user(disk, source)
    return {
        "portal": f"{_literal(place['host'])}:{place['port']}",
        "target": target,
        "lun": int(unit),
        "transport": "tcp",
        "user": user,
        "password-secret": None if user is None else authentication_secret(index),
        "initiator-name": source.initiator.iqn if source.initiator is not None else None,
    }


def _rbd(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    pool, slash, image = (source.name or "").partition("/")
    if not slash:
        raise VirtError(ErrorCode.XML_ERROR, f"XML error: disk '{disk.target.dev}': write <source name='POOL/IMAGE'>")
    user = _user(disk, source)
    encryption = source.encryption or (disk.encryption if disk.source is source else None)
    encrypt = None
    if encryption is not None and encryption.engine == "librbd":
        encrypt = {"format": encryption.format_name, "key-secret": encryption_secret(index)}
    return {
        "pool": pool,
        "image": image,
        "snapshot": source.snapshot,
        "conf": source.config,
        "server": [_inet(disk, source, host) for host in source.hosts] or None,
        "encrypt": encrypt,
        "user": user,
        "auth-client-required": None if user is None else ["cephx", "none"],
        "key-secret": None if user is None else authentication_secret(index),
    }


def _gluster(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    volume, slash, path = (source.name or "").lstrip("/").partition("/")
    if not slash:
        raise VirtError(ErrorCode.XML_ERROR, f"XML error: disk '{disk.target.dev}': write <source name='VOLUME/PATH'>")
    servers = [_server(disk, source, host) for host in source.hosts]
    return {"volume": volume, "path": path, "server": servers, "debug": _GLUSTER_LOG_LEVEL}


def _nfs(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    identity = source.identity or Identity()
    server = {"host": _inet(disk, source, source.hosts[0])["host"], "type": "inet"}
    user = _number(identity.user, lambda name: pwd.getpwnam(name).pw_uid)
    group = _number(identity.group, lambda name: grp.getgrnam(name).gr_gid)
    return {"server": server, "path": source.name, "user": user, "group": group}


def _number(name: str | None, look_up: Callable[[str], int]) -> int | None:
    """The number of a user or group, which a ``+`` before it says to be one."""
    if name is None:
        return None
    number = name.removeprefix("+")
    try:
        return look_up(name)
    except (KeyError, ValueError):
        if not (number.isascii() and number.isdecimal()):
            raise unsupported(f"<identity>: there is no '{name}' on this host; write its number, +1000") from None
        return int(number)


def _ssh(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    server = _inet(disk, source, source.hosts[0])
    return {"path": source.name, "server": server, "user": _user(disk, source)}


def _sheepdog(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    return {"server": _server(disk, source, source.hosts[0]), "vdi": source.name}


def _vxhs(disk: Disk, source: DiskSource, index: Index) -> dict[str, Any]:
    tls = credentials(index) if source.tls else None
    return {"tls-creds": tls, "vdisk-id": source.name, "server": _inet(disk, source, source.hosts[0])}
