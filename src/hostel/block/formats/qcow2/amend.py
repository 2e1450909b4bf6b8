"""Changing what an image was created with: version, refcount width, lazy refcounts, external data file, size.

What the options or the image's features make impossible is refused before anything is changed, in QEMU's words. Each
change takes effect with one write to the header; cut off between two of them, an image has some of the changes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from hostel.block import filename as names
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2 import layout, snapshot_table
from hostel.block.formats.qcow2.encryption import PREFIX, Encryption
from hostel.block.formats.qcow2.header import Preamble
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
from hostel.block.formats.qcow2.refcount_width import change_refcount_width
from hostel.block.formats.qcow2.resize import resize
from hostel.block.formats.qcow2.snapshot import replace_snapshots
from hostel.block.formats.qcow2.transaction import in_place, replace_l1
from hostel.block.formats.qcow2.write import Guest
from hostel.block.formats.qcow2.zero_clusters import expand_zero_clusters, has_compressed_clusters
from hostel.block.options import Value
from hostel.block.powers import Preallocation
from hostel.errors import BlockError, InvalidImage, UnsupportedFeature, UntrustedReference

Report = Callable[[int, int], None]
VERSIONS: Final = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_FEATURE_NAMES_FROM: Final = 8192  # bytes of a cluster: smaller ones, as with QEMU, have no room for the names
# Extensions that QEMU writes before the names of features.
_FIRST: Final = (ExtensionType.BACKING_FORMAT, ExtensionType.DATA_FILE, ExtensionType.CRYPTO_HEADER)


class _Target(NamedTuple):
    """What an image shall be.

    Attributes:
        data_file: None where the name stays; empty where none is to be recorded.
    """

    version: int
    refcount_bits: int
    lazy: bool
    data_file: str | None
    data_file_raw: bool
    size: int


def amend_image(guest: Guest, options: Mapping[str, Value], *, force: bool, report: Report) -> None:
    """Change what ``options`` say; see :data:`hostel.block.formats.qcow2.creation.AMEND_OPTIONS`.

    Raises:
        BlockError: an option cannot be what it shall be; the image is as it was.
        UnsupportedFeature: version 2 cannot have what the image has; the image is as it was, or, where its snapshots
            are of another size, as it was but for the other changes, which come first as with QEMU.
        OSError: the host's own errors; every change is made or not.
    """
    image = guest.image
    _check_encryption(guest.encryption, options)
    target = _target(image, options)
    _check(image, target, options)
    _amend_keys(guest, options, force=force)
    stages = _Stages(
        report,
        (target.version != image.header.version) + (target.refcount_bits != image.geometry.refcount_bits),
    )
    if target.version > image.header.version:
        with stages.stage() as told:
            _upgrade(image, told)
    if target.refcount_bits != image.geometry.refcount_bits:
        with stages.stage() as told:
            change_refcount_width(image, target.refcount_bits.bit_length() - 1, told)
    _set_data_file(image, target)
    _set_lazy(image, target)
    if target.size != image.size:
        resize(guest, target.size, Preallocation.OFF)
        image.flush_metadata()
    if target.version < image.header.version:
        _check_snapshots(image)
        with stages.stage() as told:
            _downgrade(guest, told)


class _Stages:
    """Shares progress out among changes that take their time."""

    def __init__(self, report: Report, count: int) -> None:
        self._report = report
        self._count = count
        self._done = 0

    @contextmanager
    def stage(self) -> Iterator[Report]:
        def told(done: int, total: int) -> None:
            if total:
                self._report(self._done * total + done, self._count * total)

        yield told
        self._done += 1


# ---- what is asked for


def _target(image: Qcow2Image, options: Mapping[str, Value]) -> _Target:
    compat = str(options.get("compat", ""))
    if "compat" in options and compat not in VERSIONS:
        raise _invalid(f"Unknown compatibility level {compat}")
    data_file = None
    if "data_file" in options:
        if not image.external:
            raise _invalid("data-file can only be set for images that use an external data file")
        data_file = _recorded(str(options["data_file"]))
    raw = bool(options.get("data_file_raw", image.raw_external))
    if raw and not image.raw_external:
        raise _invalid("data-file-raw cannot be set on existing images")
    bits = int(options.get("refcount_bits", image.geometry.refcount_bits))
    if bits & (bits - 1) or not 1 <= bits <= 64:
        raise _invalid("Refcount width must be a power of two and may not exceed 64 bits")
    return _Target(
        version=VERSIONS.get(compat, image.header.version),
        refcount_bits=bits,
        lazy=bool(options.get("lazy_refcounts", image.lazy)),
        data_file=data_file,
        data_file_raw=raw,
        size=int(options.get("size", 0)) or image.size,
    )


def _recorded(data_file: str) -> str:
    """A data file's name as an image records it: a path, since whoever opens the image follows no other name."""
    if names.protocol(data_file) not in (None, "file") or data_file == "file:":
        raise UntrustedReference(
            f"Could not open '{data_file}': data-file must be a plain path",
            hint=f"For a file of that name write '{names.of_path(data_file)}'.",
        )
    return names.of_path(data_file.removeprefix("file:"))


def _check_encryption(encryption: Encryption | None, options: Mapping[str, Value]) -> None:
    if not any(name.startswith(PREFIX) for name in options):
        return
    if encryption is None:
        raise _invalid("Can't amend encryption options - encryption not present")
    if encryption.volume is None:
        raise UnsupportedFeature("Only LUKS encryption options can be amended")


def _amend_keys(guest: Guest, options: Mapping[str, Value], *, force: bool) -> None:
    """Change who can open the image; this is the first change, since it may be refused."""
    encryption = guest.encryption
    if encryption is None or encryption.volume is None or not any(name.startswith(PREFIX) for name in options):
        return
    from hostel.block.crypto.keyslot import amend_keys

    guest.image.begin_write()
    amend_keys(encryption.volume, options, prefix=PREFIX, secret=encryption.secret, force=force)


def _check(image: Qcow2Image, target: _Target, options: Mapping[str, Value]) -> None:
    if target.refcount_bits not in (16, image.geometry.refcount_bits) and target.version < 3:
        raise _invalid(
            "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)"
        )
    _check_backing(image.preamble, options)
    if target.lazy and not image.lazy and target.version < 3:
        raise _invalid(
            "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)"
        )
    if options.get("size") and target.size % 512:
        raise _invalid("The new size must be a multiple of 512")
    if target.version < image.header.version:
        _check_downgrade(image, target)


def _check_backing(preamble: Preamble, options: Mapping[str, Value]) -> None:
    """The backing file may be named, as long as it is the one that is recorded."""
    given = options.get("backing_file"), options.get("backing_fmt")
    if given != (None, None) and given != (preamble.backing_file, preamble.backing_format):
        raise BlockError(
            "Cannot amend the backing file", errno=errno.EINVAL, hint="You can use 'qemu-img rebase' instead."
        )


def _check_downgrade(image: Qcow2Image, target: _Target) -> None:
    if target.refcount_bits != 16:
        raise UnsupportedFeature("compat=0.10 requires refcount_bits=16")
    if image.external:
        raise UnsupportedFeature("Cannot downgrade an image with a data file")
    features = image.header.incompatible_features & ~int(Incompatible.DIRTY | Incompatible.COMPRESSION)
    if features:
        raise UnsupportedFeature(f"Cannot downgrade an image with incompatible features {features:#x} set")
    if image.header.compression_type != Compression.ZLIB and has_compressed_clusters(image):
        raise UnsupportedFeature(
            "Cannot downgrade an image with zstd compression type and existing compressed clusters"
        )


def _check_snapshots(image: Qcow2Image) -> None:
    """Other programs that read version 2 images know nothing of the extra data that tells these."""
    for snapshot in snapshot_table.load(image):
        if snapshot.vm_state_size >= 1 << 32 or snapshot.disk_size != image.size:
            raise UnsupportedFeature("Internal snapshots prevent downgrade of image")


def _invalid(message: str) -> BlockError:
    return BlockError(message, errno=errno.EINVAL)


# ---- doing it


def _upgrade(image: Qcow2Image, report: Report) -> None:
    """Make a version 2 image version 3; its snapshots first get the extra data that version 3 demands."""
    image.begin_write()
    image.flush_metadata()
    snapshots = snapshot_table.load(image)
    report(0, 2)
    if any(snapshot.extra_data_size < snapshot_table.REQUIRED_EXTRA_DATA for snapshot in snapshots):
        with in_place(image) as transaction:
            transaction.commit(
                **replace_l1(image, transaction, image.l1), **replace_snapshots(image, transaction, snapshots)
            )
    report(1, 2)
    preamble = image.preamble
    extensions = list(preamble.extensions)
    if image.geometry.cluster_size >= _FEATURE_NAMES_FROM and not preamble.extension(ExtensionType.FEATURE_NAMES):
        index = sum(each.type in _FIRST for each in extensions)
        extensions.insert(index, Extension(int(ExtensionType.FEATURE_NAMES), layout.feature_name_table()))
    header = preamble.header.replace(version=3, header_length=Header.SIZE)
    image.write_preamble(preamble._replace(header=header, extensions=tuple(extensions)))


def _downgrade(guest: Guest, report: Report) -> None:
    """Make a version 3 image, which has been found fit for it, version 2."""
    image = guest.image
    image.begin_write()
    # Version 2 has no way to tell whether they are still right.
    for bitmap in list(image.bitmaps.all()):
        image.bitmaps.remove(bitmap.info().name)
    image.bitmaps.store()
    try:
        expand_zero_clusters(image, backed=guest.backing is not None, report=report, encryption=guest.encryption)
    except InvalidImage as error:
        code = error.errno or errno.EINVAL
        message = f"{error.message}\nFailed to turn zero into data clusters: {os.strerror(code)}"
        raise InvalidImage(message, errno=code, hint=error.hint) from error
    image.flush_metadata()
    preamble = image.preamble
    header = preamble.header.replace(
        version=2,
        header_length=layout.V2_HEADER_LENGTH,
        incompatible_features=0,
        compatible_features=0,
        autoclear_features=0,
        compression_type=0,
        padding=bytes(7),
    )
    kept = tuple(each for each in preamble.extensions if each.type != ExtensionType.FEATURE_NAMES)
    image.write_preamble(preamble._replace(header=header, unknown_fields=b"", extensions=kept))


def _set_data_file(image: Qcow2Image, target: _Target) -> None:
    if target.data_file is None and target.data_file_raw == image.raw_external:
        return
    image.begin_write()
    image.flush_metadata()
    preamble = image.preamble
    if target.data_file is not None:
        name = target.data_file.encode(errors="surrogateescape") or None
        preamble = headers.replace_extension(preamble, ExtensionType.DATA_FILE, name)
    if not target.data_file_raw:
        features = preamble.header.autoclear_features & ~int(Autoclear.DATA_FILE_RAW)
        preamble = preamble._replace(header=preamble.header.replace(autoclear_features=features))
    image.write_preamble(preamble)


def _set_lazy(image: Qcow2Image, target: _Target) -> None:
    """Refcounts that may be late go with the dirty bit: it is clear now, and the next write sets it where it must."""
    if target.lazy == image.lazy:
        return
    image.begin_write()
    image.end_write()
    features = image.header.compatible_features ^ int(Compatible.LAZY_REFCOUNTS)
    image.write_header_fields(
        image.header.replace(compatible_features=features), "compatible_features", "autoclear_features"
    )
