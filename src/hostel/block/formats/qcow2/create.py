"""Laying out an empty image, where QEMU lays it out: header, refcount table, refcount block, L1 table."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

from hostel.block import registry
from hostel.block.driver import OpenMode
from hostel.block.formats.qcow2 import encryption, layout
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.image import Qcow2Image
from hostel.block.formats.qcow2.layout import (
    Autoclear,
    Compatible,
    Compression,
    Extension,
    ExtensionType,
    Header,
    Incompatible,
)
from hostel.block.formats.qcow2.refcount_bytes import pack_refcounts
from hostel.block.formats.qcow2.resize import resize
from hostel.block.formats.qcow2.write import new_guest
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Preallocation
from hostel.errors import BlockError, NoSpace

T = TypeVar("T")
_SMALL_CLUSTER: Final = 4096  # bytes: up to here, as with QEMU, the names of features are left out to spare room
VERSIONS: Final = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}


class _Plan(NamedTuple):
    version: int
    cluster_size: int
    refcount_bits: int
    lazy: bool
    compression: Compression
    preallocation: Preallocation
    backing_file: str | None
    backing_format: str | None
    extended: bool
    data_file: str | None
    data_file_raw: bool
    encryption: encryption.Plan | None


def check_creation(size: int, options: Mapping[str, Value]) -> None:
    """Raise what :func:`create_image` would raise for these, before a file is touched.

    Raises:
        BlockError: an option or a combination of options makes no sense, or the size is beyond what can be mapped.
        UnsupportedFeature: an option that is not implemented.
    """
    preamble = _preamble(_plan(options))
    if Geometry.of(preamble.header).l1_entries(size) > layout.MAX_L1_SIZE // 8:
        raise NoSpace("The size is beyond what the cluster size can map", errno=errno.EFBIG)
    headers.serialise(preamble)


def create_image(file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
    """Lay out an image of ``size`` bytes in an empty ``file``.

    One with an external data file has 0 bytes yet: it is resized, and preallocated, once that file is attached.

    Raises:
        BlockError: an option or a combination of options makes no sense.
        UnsupportedFeature: an option that is not implemented.
        OSError: the host's own errors.
    """
    plan = _plan(options)
    cluster_size = plan.cluster_size
    table = (2 * cluster_size).to_bytes(8, "big")
    # Header, refcount table and the one refcount block count themselves.
    block = pack_refcounts([1, 1, 1] + [0] * 5, plan.refcount_bits).ljust(cluster_size, b"\0")
    file.pwrite(0, headers.serialise(_preamble(plan)).ljust(cluster_size, b"\0"))
    file.pwrite(cluster_size, table.ljust(cluster_size, b"\0"))
    file.pwrite(2 * cluster_size, block)
    image = Qcow2Image(file, OpenMode(read_only=False))
    guest = new_guest(image)
    if plan.encryption is not None:
        guest.encryption = plan.encryption.set_up(image)
    if not plan.data_file:
        try:
            resize(guest, size, plan.preallocation)
        except BlockError as error:
            error.message = f"Could not resize image: {error.message}"
            raise
    image.close()
    file.flush()


def _plan(options: Mapping[str, Value]) -> _Plan:
    backing_file = str(options["backing_file"]) if options.get("backing_file") else None
    version = _choice(options, "compat", "1.1", VERSIONS, "version")
    registry.require_backing_format(options.get("backing_fmt"))
    plan = _Plan(
        version=version,
        cluster_size=int(options.get("cluster_size", 65536)),
        refcount_bits=int(options.get("refcount_bits", 16)),
        lazy=bool(options.get("lazy_refcounts", False)),
        compression=_choice(
            options,
            "compression_type",
            "zlib",
            {"zlib": Compression.ZLIB, "zstd": Compression.ZSTD},
            "compression-type",
        ),
        preallocation=_choice(
            options, "preallocation", "off", {mode.value: mode for mode in Preallocation}, "preallocation"
        ),
        backing_file=backing_file,
        backing_format=str(options["backing_fmt"]) if options.get("backing_fmt") else None,
        extended=bool(options.get("extended_l2", False)),
        data_file=str(options["data_file"]) if options.get("data_file") else None,
        data_file_raw=bool(options.get("data_file_raw", False)),
        encryption=encryption.read_plan(options),
    )
    _check(plan)
    return plan


def _choice(options: Mapping[str, Value], name: str, default: str, choices: Mapping[str, T], shown: str) -> T:
    text = str(options.get(name, default))
    if text not in choices:
        raise BlockError(f"Parameter '{shown}' does not accept value '{text}'", errno=errno.EINVAL)
    return choices[text]


def _check(plan: _Plan) -> None:
    """Refuse what cannot be, in QEMU's words."""
    size, bits = plan.cluster_size, plan.refcount_bits
    if size & (size - 1) or not 1 << layout.MIN_CLUSTER_BITS <= size <= 1 << layout.MAX_CLUSTER_BITS:
        raise _invalid("Cluster size must be a power of two between 512 and 2048k")
    if bits & (bits - 1) or not 1 <= bits <= 64:
        raise _invalid("Refcount width must be a power of two and may not exceed 64 bits")
    old = plan.version < 3
    if plan.lazy and old:
        raise _invalid(
            "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)"
        )
    if bits != 16 and old:
        raise _invalid(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above "
            "(use version=v3 or greater)"
        )
    if plan.compression is not Compression.ZLIB and old:
        raise _invalid(
            "Non-zlib compression type is only supported with compatibility level 1.1 and above "
            "(use version=v3 or greater)"
        )
    if plan.extended and old:
        raise _invalid(
            "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)"
        )
    if plan.extended and size < 1 << layout.MIN_EXTENDED_BITS:
        raise _invalid("Extended L2 entries are only supported with cluster sizes of at least 16384 bytes")
    if plan.backing_file and plan.preallocation is not Preallocation.OFF and not plan.extended:
        raise _invalid("Backing file and preallocation can only be used at the same time if extended_l2 is on")
    if plan.data_file_raw and not plan.data_file:
        raise _invalid("data-file-raw requires data-file")
    if plan.data_file_raw and plan.encryption is not None:
        raise _invalid("Encryption and data-file-raw cannot be used at the same time")
    if plan.data_file_raw and plan.backing_file:
        raise _invalid("Backing file and data-file-raw cannot be used at the same time")
    if plan.data_file and old:
        raise _invalid(
            "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)"
        )
    if plan.backing_format and not plan.backing_file:
        raise _invalid("Backing format cannot be used without backing file")


def _invalid(message: str) -> BlockError:
    return BlockError(message, errno=errno.EINVAL)


def _preamble(plan: _Plan) -> headers.Preamble:
    cluster_size = plan.cluster_size
    features = Incompatible.EXTENDED_L2 if plan.extended else Incompatible.NONE
    if plan.compression is not Compression.ZLIB:
        features |= Incompatible.COMPRESSION
    if plan.data_file:
        features |= Incompatible.DATA_FILE
    header = Header(
        magic=layout.MAGIC,
        version=plan.version,
        backing_file_offset=0,
        backing_file_size=0,
        cluster_bits=cluster_size.bit_length() - 1,
        size=0,
        crypt_method=0,
        l1_size=0,
        l1_table_offset=0,
        refcount_table_offset=cluster_size,
        refcount_table_clusters=1,
        nb_snapshots=0,
        snapshots_offset=0,
        incompatible_features=int(features),
        compatible_features=int(Compatible.LAZY_REFCOUNTS if plan.lazy else Compatible.NONE),
        autoclear_features=int(Autoclear.DATA_FILE_RAW if plan.data_file_raw else Autoclear.NONE),
        refcount_order=plan.refcount_bits.bit_length() - 1,
        header_length=layout.V2_HEADER_LENGTH if plan.version == 2 else Header.SIZE,
        compression_type=int(plan.compression),
        padding=bytes(7),
    )
    extensions: list[Extension] = []
    if plan.backing_format:
        name = plan.backing_format.encode(errors="surrogateescape")
        extensions.append(Extension(int(ExtensionType.BACKING_FORMAT), name))
    if plan.data_file:
        name = plan.data_file.encode(errors="surrogateescape")
        extensions.append(Extension(int(ExtensionType.DATA_FILE), name))
    if plan.version >= 3 and cluster_size > _SMALL_CLUSTER:
        extensions.append(Extension(int(ExtensionType.FEATURE_NAMES), layout.feature_name_table()))
    return headers.Preamble(header, b"", tuple(extensions), plan.backing_file)
