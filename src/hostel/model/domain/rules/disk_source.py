"""Rules for where a disk's data is (``virDomainDiskDefValidateSource``, ``qemuDomainValidateStorageSource``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.errors import ErrorCode, ModelError
from hostel.model.authentication import Authentication
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import (
    Cookie,
    DiskSource,
    Host,
    MetadataCache,
    Reservations,
    ReservationsSource,
    SourceType,
)
from hostel.model.domain.rules.board import shares_memory
from hostel.model.domain.rules.rule import Machine
from hostel.model.encryption import Encryption

_UNSUPPORTED: Final = ErrorCode.CONFIG_UNSUPPORTED
_WITH_SECRETS: Final = ("iscsi", "http", "https", "ftp", "ftps", "ssh", "rbd")
_USES: Final = {"iscsi": "iscsi", "rbd": "ceph"}
_POOLED: Final = {"gluster": "VOLUME/PATH", "rbd": "POOL/IMAGE"}
_PORT: Final = re.compile(r"\d{1,5}", re.ASCII)
_POOL_AND_IMAGE: Final = re.compile("[^/]+/")
_NOT_IN_COOKIE: Final = re.compile(r'[\x01-\x20",;\\]')
_NOT_IN_COOKIE_NAME: Final = re.compile(r"[()<>@:/\[\]?={}]")
_TRANSFERS: Final = ("http", "https", "ftp", "ftps")
# What a URL may say, and the protocols of which it may say so.
_URL_OPTIONS: Final = (
    ("ssl_verify", ("https", "ftps"), "ssl verification is supported only with HTTPS/FTPS protocol"),
    ("cookies", ("http", "https"), "http cookies are supported only with HTTP(S) protocol"),
    ("readahead", _TRANSFERS, "readahead is supported only with HTTP(S)/FTP(s) protocols"),
    ("timeout", _TRANSFERS, "timeout is supported only with HTTP(S)/FTP(s) protocols"),
    ("query", ("http", "https"), "query is supported only with HTTP(S) protocols"),
)


class _Layer(NamedTuple):
    """One image of a chain.

    Attributes:
        type: what kind of thing its data is in.
        format: the image's format.
        source: where it is.
        encryption: how it is encrypted.
        auth: who opens it.
        cache: what may be kept of its metadata.
        is_readonly: whether nothing is written to it.
        path: where in the document it is.
    """

    type: SourceType | None
    format: str | None
    source: DiskSource
    encryption: Encryption | None
    auth: Authentication | None
    cache: MetadataCache | None
    is_readonly: bool
    path: str

    @property
    def protocol(self) -> str | None:
        """The network protocol; none where the data is not on a network."""
        return self.source.protocol if self.type == SourceType.NETWORK else None


def _layers(disk: Disk, path: str) -> Iterator[_Layer]:
    source = disk.source or DiskSource()
    driver = disk.driver
    yield _Layer(
        disk.type,
        driver.type if driver is not None else None,
        source,
        source.encryption or disk.encryption,
        source.auth or disk.auth,
        driver.metadata_cache if driver is not None else None,
        disk.readonly,
        path,
    )
    backing = disk.backing_store
    while backing is not None and backing.type is not None:
        path = f"{path}/backingStore"
        image = backing.image_format
        source = backing.source or DiskSource()
        format, cache = (image.type, image.metadata_cache) if image is not None else (None, None)
        yield _Layer(backing.type, format, source, source.encryption, source.auth, cache, True, path)
        backing = backing.backing_store


def check_sources(disk: Disk, path: str, machine: Machine) -> None:
    """Hold every image of a disk against the rules.

    Raises:
        ModelError: something is said of one that cannot be, or twice.
    """
    if disk.source is not None and disk.auth is not None and disk.source.auth is not None:
        reason = "an <auth> definition already found for disk source"
        raise ModelError(f"{path}/source/auth", reason, code=_UNSUPPORTED)
    if disk.source is not None and disk.encryption is not None and disk.source.encryption is not None:
        reason = "an <encryption> definition already found for disk source"
        raise ModelError(f"{path}/source/encryption", reason, code=_UNSUPPORTED)
    for layer in _layers(disk, path):
        check_source(layer.type, layer.source, f"{layer.path}/source")
        _check_auth(layer)
        encryption = layer.encryption
        if encryption is not None and encryption.format_name == "luks" and encryption.cipher is not None:
            reason = "supplying <cipher> for domain disk definition is unnecessary"
            raise ModelError(f"{layer.path}/encryption/cipher", reason, code=_UNSUPPORTED)
        for name in ("snapshot", "config"):
            if getattr(layer.source, name) is not None and layer.type != SourceType.NETWORK:
                reason = f"<{name}> element is currently supported only with 'rbd' disks"
                raise ModelError(f"{layer.path}/source/{name}", reason)
        if machine.platform.is_qemu:
            _check_qemu(layer, machine)
    if machine.platform.is_qemu and disk.type == SourceType.VHOSTUSER and not shares_memory(machine):
        raise ModelError(f"{path}/@type", "'vhostuser' requires shared memory", code=_UNSUPPORTED)


def check_source(type: SourceType | None, source: DiskSource, path: str) -> None:
    """Refuse a source on a network that has no name, or cookies that would be more than cookies.

    Raises:
        ModelError: it does not say where the data is; the words are libvirt's.
    """
    reservations = source.reservations
    if reservations is not None:
        _check_reservations(reservations, f"{path}/reservations")
    if type == SourceType.VOLUME and (source.pool is None) != (source.volume is None):
        reason = "'pool' and 'volume' must be specified together for 'pool' type source"
        raise ModelError(path, reason)
    if type != SourceType.NETWORK or source.protocol is None:
        return
    for number, host in enumerate(source.hosts, 1):
        check_host(host, f"{path}/host[{number}]")
    if source.name is None and source.protocol != "nbd":
        raise ModelError(f"{path}/@name", "missing name for disk source")
    if source.protocol in _POOLED and not _POOL_AND_IMAGE.match(source.name or ""):
        wanted = _POOLED[source.protocol]
        reason = f"can't split path '{source.name}' into pool name and image name: write {wanted}"
        raise ModelError(f"{path}/@name", reason)
    for number, cookie in enumerate(source.cookies.cookies if source.cookies is not None else [], 1):
        _check_cookie(cookie, f"{path}/cookies/cookie[{number}]")


def check_host(host: Host, path: str) -> None:
    """Refuse a server that cannot be reached (``virDomainStorageNetworkParseHost``).

    Raises:
        ModelError: it has no name or no socket, or its port is none; the words are libvirt's.
    """
    if host.transport == "unix":
        if host.socket is None:
            raise ModelError(f"{path}/@socket", "missing socket for unix transport")
        return
    if host.socket is not None:
        transport = host.transport or "(null)"
        raise ModelError(f"{path}/@socket", f"transport '{transport}' does not support socket attribute")
    if host.name is None:
        raise ModelError(f"{path}/@name", "missing name for host")
    if host.port is not None and not _PORT.fullmatch(host.port):
        reason = f"failed to parse port number '{host.port}'"
        raise ModelError(f"{path}/@port", reason, code=ErrorCode.INVALID_ARG)


def _check_reservations(reservations: Reservations, path: str) -> None:
    if reservations.managed is None:
        raise ModelError(f"{path}/@managed", "Missing required attribute 'managed' in element 'reservations'")
    if not reservations.managed:
        named = reservations.source or ReservationsSource()
        for name, what in (("type", "connection type"), ("path", "path"), ("mode", "connection mode")):
            if getattr(named, name) is None:
                raise ModelError(f"{path}/source/@{name}", f"missing {what} for <reservations/>")


def _check_cookie(cookie: Cookie, path: str) -> None:
    """Names and values are what RFC 6265, section 4.1.1, has; others could be headers of their own."""
    if not cookie.name:
        raise ModelError(f"{path}/@name", "cookie name must not be empty")
    if _NOT_IN_COOKIE.search(cookie.name) or _NOT_IN_COOKIE_NAME.search(cookie.name):
        raise ModelError(f"{path}/@name", f"cookie name '{cookie.name}' contains invalid characters")
    value = cookie.value or ""
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = value[1:-1]
    if _NOT_IN_COOKIE.search(value):
        raise ModelError(path, f"value of cookie '{cookie.name}' contains invalid characters")


def _check_auth(layer: _Layer) -> None:
    if layer.auth is None or layer.protocol is None:
        return
    path = f"{layer.path}/source/auth"
    if layer.protocol not in _WITH_SECRETS:
        reason = f"authentication is not supported for protocol '{layer.protocol}'"
        raise ModelError(path, reason, code=_UNSUPPORTED)
    kind = layer.auth.secret.type if layer.auth.secret is not None else None
    if kind is None:
        raise ModelError(f"{path}/secret/@type", "unknown secret type '<null>'", code=_UNSUPPORTED)
    if _USES.get(layer.protocol, kind) != kind:
        raise ModelError(f"{path}/secret/@type", f"invalid secret type '{kind}'", code=_UNSUPPORTED)


def _check_qemu(layer: _Layer, machine: Machine) -> None:
    _check_format(layer)
    source, path = layer.source, f"{layer.path}/source"
    for name, protocols, words in _URL_OPTIONS:
        if getattr(source, name) is not None and layer.protocol not in protocols:
            raise ModelError(f"{path}/{name}", words, code=_UNSUPPORTED)
    if layer.protocol == "tftp":
        reason = "'tftp' protocol is not supported with this QEMU binary"
        raise ModelError(f"{path}/@protocol", reason, code=_UNSUPPORTED)
    if layer.protocol == "nfs":
        _check_nfs(source, path)
    if layer.cache is not None and layer.cache.max_size is not None and layer.format != "qcow2":
        reason = "metadata cache max size control is supported only with qcow2 images"
        raise ModelError(f"{layer.path}/driver/metadata_cache", reason, code=_UNSUPPORTED)
    if layer.encryption is not None:
        _check_encryption(layer, layer.encryption, machine)
    if source.tls_hostname is not None:
        if layer.protocol != "nbd":
            reason = "'tlsHostname' field is supported only with NBD disks"
            raise ModelError(f"{path}/@tlsHostname", reason, code=_UNSUPPORTED)
        if not machine.has("blockdev.nbd.tls-hostname"):
            reason = "'tlsHostname' field is not supported by this QEMU"
            raise ModelError(f"{path}/@tlsHostname", reason, code=_UNSUPPORTED)


_UNUSABLE: Final = {
    "cow": "'cow' storage format is not supported",
    "dir": "'directory' storage format is not directly supported by QEMU, use 'dir' disk type instead",
    "iso": "storage format 'iso' is not directly supported by QEMU, use 'raw' instead",
    "fat": "storage format 'fat' is supported only with 'dir' storage type",
}


def unusable_format(name: str | None, kind: SourceType | None) -> str | None:
    """Why QEMU opens no image of a format that libvirt has a name for; None where it does."""
    if name == "fat" and kind in (SourceType.VOLUME, SourceType.DIR):
        return None
    return _UNUSABLE.get(name or "")


def _check_format(layer: _Layer) -> None:
    path = f"{layer.path}/driver/@type"
    reason = unusable_format(layer.format, layer.type)
    if reason is not None:
        raise ModelError(path, reason, code=_UNSUPPORTED)
    if layer.type == SourceType.DIR:
        if layer.format not in (None, "fat"):
            reason = "storage type 'dir' requires use of storage format 'fat'"
            raise ModelError(path, reason, code=_UNSUPPORTED)
        if not layer.is_readonly:
            reason = "virtual FAT storage can't be accessed in read-write mode"
            raise ModelError(f"{layer.path}/readonly", reason, code=_UNSUPPORTED)


def _check_nfs(source: DiskSource, path: str) -> None:
    if len(source.hosts) != 1:
        reason = "'nfs' protocol requires the usage of exactly one host"
        raise ModelError(f"{path}/host", reason, code=_UNSUPPORTED)
    host = source.hosts[0]
    if host.transport not in (None, "tcp"):
        raise ModelError(f"{path}/host/@transport", "'nfs' host must use TCP protocol", code=_UNSUPPORTED)
    if host.port is not None:
        reason = "port cannot be specified in 'nfs' protocol host"
        raise ModelError(f"{path}/host/@port", reason, code=_UNSUPPORTED)


def _check_encryption(layer: _Layer, encryption: Encryption, machine: Machine) -> None:
    path = f"{layer.path}/encryption"
    if encryption.format_name in ("default", "qcow"):
        raise ModelError(f"{path}/@format", "old qcow/qcow2 encryption is not supported", code=_UNSUPPORTED)
    if encryption.engine == "librbd":
        if not machine.has("rbd-encryption"):
            reason = "librbd encryption is not supported by this QEMU binary"
            raise ModelError(f"{path}/@engine", reason, code=_UNSUPPORTED)
        if layer.protocol != "rbd":
            reason = "librbd encryption is supported only with RBD backed disks"
            raise ModelError(f"{path}/@engine", reason, code=_UNSUPPORTED)
    elif encryption.format_name == "luks2":
        reason = "luks2 is currently not supported by the qemu encryption engine"
        raise ModelError(f"{path}/@format", reason, code=_UNSUPPORTED)
    elif layer.format not in ("qcow2", "raw", None):
        reason = "encryption is supported only with 'raw' and 'qcow2' image format"
        raise ModelError(f"{layer.path}/driver/@type", reason, code=_UNSUPPORTED)
