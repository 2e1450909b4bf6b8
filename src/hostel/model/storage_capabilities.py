"""What a connection can do with storage pools (``virStoragePoolCapsFormat``)."""

from __future__ import annotations

from collections.abc import Collection

from hostel.codec.xml import STRING, YES_NO, Element, attr, child, children, enumeration, setting, texts
from hostel.model.pool_type import TRAITS, Formats
from hostel.model.storage import PoolType


class Values(Element, tag="enum", keep_open=True):
    """The formats that there are."""

    name: str = attr()
    values: list[str] = texts(STRING, tag="value", factory=list)


class PoolOptions(Element, tag="poolOptions"):
    """The formats of a pool's source."""

    default_format: str | None = setting(tag="defaultFormat", name="type", default=None)
    formats: Values | None = child(Values, default=None)


class VolumeOptions(Element, tag="volOptions"):
    """The formats of a pool's volumes."""

    default_format: str | None = setting(tag="defaultFormat", name="type", default=None)
    formats: Values | None = child(Values, default=None)


class SupportedPool(Element, tag="pool", keep_open=True):
    """A type of pools, and whether the connection has it."""

    type: PoolType = attr(enumeration(PoolType))
    supported: bool = attr(YES_NO)
    pool_options: PoolOptions | None = child(PoolOptions, default=None)
    volume_options: VolumeOptions | None = child(VolumeOptions, default=None)


class StoragePoolCapabilities(Element, tag="storagepoolCapabilities", keep_open=True):
    """Every type of pools."""

    pools: list[SupportedPool] = children(SupportedPool, factory=list)


def storage_capabilities(supported: Collection[PoolType]) -> StoragePoolCapabilities:
    """The capabilities of a connection that has these types of pools."""
    return StoragePoolCapabilities(
        pools=[
            SupportedPool(
                type=type,
                supported=type in supported,
                pool_options=None if traits.source is None else _pool_options(traits.source),
                volume_options=None if traits.volume is None else _volume_options(traits.volume),
            )
            for type, traits in TRAITS.items()
        ]
    )


def _pool_options(formats: Formats) -> PoolOptions:
    values = Values(name="sourceFormatType", values=list(formats.listed))
    return PoolOptions(default_format=formats.default, formats=values)


def _volume_options(formats: Formats) -> VolumeOptions:
    values = Values(name="targetFormatType", values=list(formats.listed))
    return VolumeOptions(default_format=formats.default, formats=values)
