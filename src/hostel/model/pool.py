"""A storage pool's document: read, completed and held against the rules (``virStoragePoolDefParseXML``)."""

from __future__ import annotations

import re
import uuid as uuids
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.authentication import Authentication, SecretReference
from hostel.model.path import clean_path
from hostel.model.pool_type import TRAITS, Part, PoolTraits
from hostel.model.storage import (
    Adapter,
    Allocation,
    Available,
    Capacity,
    Permissions,
    Pool,
    PoolSource,
    PoolTarget,
    PoolType,
)

_WWN: Final = re.compile("(0x)?[0-9a-fA-F]{16}")
_LEFT_ALONE: Final = (-1, 2**32 - 1)  # an owner or a group; the second is how the host has the first
_DEVICES: Final = {PoolType.LOGICAL: "/dev/", PoolType.ZFS: "/dev/zvol/"}
_MOUNTED: Final = (PoolType.FS, PoolType.NETFS)


def read_pool(xml: str) -> Pool:
    """Read a new pool's document, and complete it.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    pool = Pool.parse(xml, "storage_pool_definition")
    if pool.type is PoolType.RBD and pool.source is not None and pool.source.name is None:
        raise ModelError("/pool/source/name", "element 'name' is mandatory for RBD pool")
    complete(pool)
    validate(pool)
    return pool


def complete(pool: Pool) -> None:
    """Say what was left out, and leave out what a pool of the type does not have.

    Sizes are the running pool's: a definition has none.
    """
    traits = TRAITS[pool.type]
    source = pool.source = pool.source or PoolSource()
    if pool.name is None and Part.NAME in traits.parts:
        pool.name = source.name
    if pool.uuid is None:
        pool.uuid = str(uuids.uuid4())
    pool.capacity, pool.allocation = Capacity(value=0, unit="bytes"), Allocation(value=0, unit="bytes")
    pool.available = Available(value=0, unit="bytes")
    _complete_source(pool, source, traits)
    if traits.is_remote:
        pool.target = None
        return
    target = pool.target = pool.target or PoolTarget()
    if pool.type in _DEVICES:
        target.path = f"{_DEVICES[pool.type]}{source.name}"
    elif target.path is not None:
        target.path = clean_path(target.path)
    complete_permissions(target.permissions)


def _complete_source(pool: Pool, source: PoolSource, traits: PoolTraits) -> None:
    parts = traits.parts
    source.name = (source.name or pool.name) if Part.NAME in parts else None
    source.hosts = source.hosts if Part.HOST in parts else []
    for host in source.hosts:
        if host.port and not host.port.strip("0"):
            host.port = None
    source.devices = source.devices if Part.DEVICE in parts else []
    for device in source.devices:
        device.free_extents = []
    source.adapter = source.adapter if Part.ADAPTER in parts else None
    if source.adapter is not None and source.adapter.type is None and source.adapter.name is not None:
        source.adapter.type = "scsi_host"
    source.initiator = source.initiator if Part.INITIATOR in parts else None
    if source.dir is not None:
        source.dir = clean_path(source.dir) if Part.DIR in parts else None
    elif pool.type is PoolType.GLUSTER:
        source.dir = "/"
    if traits.source is None:
        source.format_type = None
    elif source.format_type is None:
        source.format_type = traits.source.default
    if pool.type not in _MOUNTED:
        pool.mount_options = None
    if pool.type is not PoolType.RBD:
        pool.rbd_options = None


def complete_permissions(permissions: Permissions | None) -> None:
    """Leave out an owner and a group that stand for none."""
    if permissions is not None:
        permissions.owner = None if permissions.owner in _LEFT_ALONE else permissions.owner
        permissions.group = None if permissions.group in _LEFT_ALONE else permissions.group


def validate(pool: Pool) -> None:
    """Hold a completed pool against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if not pool.name:
        raise ModelError("/pool/name", "missing pool source name element")
    if "/" in pool.name:
        raise ModelError("/pool/name", f"name {pool.name} cannot contain '/'")
    if pool.features is not None and pool.features.cow is not None and pool.type not in (PoolType.FS, PoolType.DIR):
        reason = "cow feature may only be used for 'fs' and 'dir' pools"
        raise ModelError("/pool/features/cow", reason, code=ErrorCode.NO_SUPPORT)
    source = pool.source or PoolSource()
    _check_source(source, TRAITS[pool.type])
    if pool.type is PoolType.ISCSI_DIRECT and (source.initiator is None or not source.initiator.iqn):
        raise ModelError("/pool/source/initiator/iqn", "missing initiator IQN", code=ErrorCode.CONFIG_UNSUPPORTED)
    if not TRAITS[pool.type].is_remote:
        if pool.target is None or not pool.target.path:
            raise ModelError("/pool/target/path", "missing storage pool target path")
        check_permissions(pool.target.permissions, "/pool/target/permissions")


def _check_source(source: PoolSource, traits: PoolTraits) -> None:
    parts = traits.parts
    here = "/pool/source"
    if traits.source is not None and source.format_type not in traits.source.known:
        reason = f"unknown pool format type {source.format_type}; write one of {', '.join(traits.source.known)}"
        raise ModelError(f"{here}/format/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    for number, host in enumerate(source.hosts, 1):
        if host.name is None:
            raise ModelError(f"{here}/host[{number}]/@name", "missing storage pool host name")
        if host.port is not None and not re.fullmatch(r"-?[0-9]+", host.port):
            reason = f"Invalid value for attribute 'port' in element 'host': '{host.port}'. Expected integer value"
            raise ModelError(f"{here}/host[{number}]/@port", reason)
    if Part.HOST in parts and not source.hosts:
        raise ModelError(f"{here}/host", "missing storage pool source host name")
    if Part.DIR in parts and source.dir is None:
        raise ModelError(f"{here}/dir", "missing storage pool source path")
    if parts == Part.DEVICE and not source.devices:
        raise ModelError(f"{here}/device", "missing storage pool source device name")
    if Part.ADAPTER in parts:
        _check_adapter(source.adapter, f"{here}/adapter")
    if source.auth is not None:
        _check_authentication(source.auth, f"{here}/auth")
    if source.protocol is not None:
        if source.format_type not in ("nfs", "auto"):
            reason = f"storage pool protocol ver unsupported for pool type '{source.format_type}'"
            raise ModelError(f"{here}/protocol/@ver", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        if "," in source.protocol:
            reason = f"storage pool protocol ver '{source.protocol}' must not contain ','"
            raise ModelError(f"{here}/protocol/@ver", reason, code=ErrorCode.XML_DETAIL)


def _check_adapter(adapter: Adapter | None, path: str) -> None:
    if adapter is None:
        raise ModelError(path, "missing storage pool source adapter")
    if adapter.type is None:
        if adapter.wwnn or adapter.wwpn or adapter.parent:
            reason = "Use of 'wwnn', 'wwpn', and 'parent' attributes requires use of the adapter 'type'"
            raise ModelError(path, reason)
        if adapter.parent_address is not None:
            raise ModelError(path, "Use of 'parentaddr' element requires use of the adapter 'type'")
        raise ModelError(path, "missing storage pool source adapter")
    if adapter.type == "fc_host":
        _check_fibre_channel(adapter, path)
        return
    where = adapter.parent_address
    if where is not None and where.address is None:
        raise ModelError(f"{path}/parentaddr", "Missing scsi_host PCI address element")
    if where is not None and where.unique_id is None:
        raise ModelError(f"{path}/parentaddr", "Missing or invalid scsi adapter 'unique_id' value")
    if adapter.name is None and where is None:
        raise ModelError(path, "Either 'name' or 'parent' must be specified for the 'scsi_host' adapter")
    if adapter.name is not None and where is not None:
        raise ModelError(path, "Both 'name' and 'parent' cannot be specified for the 'scsi_host' adapter")


def _check_fibre_channel(adapter: Adapter, path: str) -> None:
    if adapter.wwnn is None or adapter.wwpn is None:
        raise ModelError(path, "'wwnn' and 'wwpn' must be specified for adapter type 'fchost'")
    for one, other in (("parent_wwnn", "parent_wwpn"), ("parent_wwpn", "parent_wwnn")):
        if getattr(adapter, one) is not None and getattr(adapter, other) is None:
            reason = f"when providing {one}='{getattr(adapter, one)}', the {other} must also be provided"
            raise ModelError(f"{path}/@{other}", reason)
    for name in ("wwnn", "wwpn", "parent_wwnn", "parent_wwpn", "parent_fabric_wwn"):
        value = getattr(adapter, name)
        if value is not None and not _WWN.fullmatch(value):
            reason = f"Malformed wwn: {value}; write 16 hexadecimal digits"
            raise ModelError(f"{path}/@{name}", reason, code=ErrorCode.INTERNAL_ERROR)


def _check_authentication(auth: Authentication, path: str) -> None:
    if auth.secret is None:
        raise ModelError(path, "Missing <secret> element in auth")
    check_secret(auth.secret, f"{path}/secret")
    if auth.type is None:
        raise ModelError(f"{path}/@type", "storage pool missing auth type", code=ErrorCode.CONFIG_UNSUPPORTED)


def check_secret(secret: SecretReference, path: str) -> None:
    """A secret is named by its UUID or by its use.

    Raises:
        ModelError: by both, or by neither.
    """
    if secret.uuid is None and secret.usage is None:
        raise ModelError(path, "missing secret uuid or usage attribute")
    if secret.uuid is not None and secret.usage is not None:
        raise ModelError(path, "either secret uuid or usage expected")


def check_permissions(permissions: Permissions | None, path: str) -> None:
    """The mode has nothing but permissions.

    Raises:
        ModelError: it has.
    """
    if permissions is not None and permissions.mode is not None and permissions.mode & ~0o777:
        raise ModelError(f"{path}/mode", "malformed octal mode")
