"""A storage volume's document: read, completed and held against the rules (``virStorageVolDefParseXML``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.encryption import Encryption
from hostel.model.pool import check_permissions, check_secret, complete_permissions
from hostel.model.pool_type import TRAITS
from hostel.model.scaled import Scaled
from hostel.model.storage import Allocation, Capacity, PoolType, Volume, VolumeBacking, VolumeTarget, VolumeType

_COMPAT: Final = re.compile(r"[0-9]+\.[0-9]+", re.ASCII)
_FEATURES_SINCE: Final = "1.1"  # qcow2's version 3


def read_volume(xml: str, pool: PoolType, *, needs_capacity: bool = True) -> Volume:
    """Read the document of a new volume of a pool, and complete it.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    volume = Volume.parse(xml, "storage_volume_definition")
    settle(volume, pool, needs_capacity=needs_capacity)
    return volume


def settle(volume: Volume, pool: PoolType, *, needs_capacity: bool = True) -> None:
    """Complete the document of a new volume of a pool, and hold it against the rules.

    Raises:
        ModelError: it breaks one; the path says where.
    """
    if volume.name is None:
        raise ModelError("/volume/name", "missing volume name element")
    if needs_capacity and volume.capacity is None:
        raise ModelError("/volume/capacity", "missing capacity element")
    complete(volume, pool)
    validate(volume, pool)


def complete(volume: Volume, pool: PoolType) -> None:
    """Say what was left out, and leave out what only a volume that exists has.

    Raises:
        ModelError: a size is too large, or has an unknown unit.
    """
    formats = TRAITS[pool].volume
    volume.type = volume.type or VolumeType.FILE
    volume.source = volume.physical = None
    volume.capacity = volume.capacity or Capacity(value=0)
    _normalise(volume.capacity, "/volume")
    volume.allocation = volume.allocation or Allocation(value=volume.capacity.value)
    _normalise(volume.allocation, "/volume")
    target = volume.target = volume.target or VolumeTarget()
    if volume.backing_store is not None and volume.backing_store.path is None:
        volume.backing_store = None
    for part in (target, volume.backing_store):
        if part is not None:
            part.format_type = None if formats is None else part.format_type or formats.default
            part.timestamps = None
            complete_permissions(part.permissions)
    if target.cluster_size is not None:
        _normalise(target.cluster_size, "/volume/target")
        target.cluster_size = target.cluster_size if target.cluster_size.value else None
    if target.features is not None:
        target.compat = target.compat or _FEATURES_SINCE
    if target.encryption is not None:
        target.encryption.settle()


def _normalise(size: Scaled, path: str) -> None:
    try:
        size.normalise()
    except ModelError as error:
        raise ModelError(f"{path}/{error.path}", error.reason, code=error.code) from None


def validate(volume: Volume, pool: PoolType) -> None:
    """Hold a completed volume against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if volume.target is not None:
        _check_target(volume.target, pool, "/volume/target")
    if volume.backing_store is not None:
        _check_place(volume.backing_store, pool, "/volume/backingStore")


def _check_target(target: VolumeTarget, pool: PoolType, path: str) -> None:
    _check_place(target, pool, path)
    if target.encryption is not None:
        check_encryption(target.encryption, f"{path}/encryption")
    if target.compat is not None and not _COMPAT.fullmatch(target.compat):
        raise ModelError(f"{path}/compat", "forbidden characters in 'compat' attribute")
    if target.features is not None and target.features.unknown:
        name = target.features.unknown[0].name
        raise ModelError(f"{path}/features", f"unsupported feature {name}", code=ErrorCode.CONFIG_UNSUPPORTED)


def _check_place(place: VolumeTarget | VolumeBacking, pool: PoolType, path: str) -> None:
    formats = TRAITS[pool].volume
    if formats is not None and place.format_type not in formats.known:
        reason = f"unknown volume format type {place.format_type}; write one of {', '.join(formats.known)}"
        raise ModelError(f"{path}/format/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    check_permissions(place.permissions, f"{path}/permissions")


def check_encryption(encryption: Encryption, path: str) -> None:
    """Each secret has its type and is named in one way; there is no ``ivgen`` without a cipher.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    for number, secret in enumerate(encryption.secrets, 1):
        here = f"{path}/secret[{number}]"
        if secret.type is None:
            raise ModelError(f"{here}/@type", "unknown volume encryption secret type")
        if secret.type != "passphrase":
            reason = f"unknown volume encryption secret type {secret.type}; write passphrase"
            raise ModelError(f"{here}/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        check_secret(secret, here)
    if encryption.ivgen is not None and encryption.cipher is None:
        raise ModelError(f"{path}/ivgen", "ivgen element found, but cipher is missing")
    if encryption.cipher is not None and encryption.cipher.size is None:
        raise ModelError(f"{path}/cipher", "Missing required attribute 'size' in element 'cipher'")
