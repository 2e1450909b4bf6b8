"""librados and librbd, as far as a disk needs them: one image of one pool."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hostel.block.protocols import shared_library
from hostel.errors import BlockError
from hostel.units import GiB

_CONNECTING: Final = 60.0  # seconds to find the cluster, where its configuration says nothing else
_REQUEST: Final = 300.0  # seconds of a request, likewise: longer than a cluster takes to do without a failed server
# The settings that bound a wait, what they are where nobody has set them, and what they become then; seconds.
_TIMEOUTS: Final = (
    ("client_mount_timeout", 300.0, _CONNECTING),
    ("rados_mon_op_timeout", 0.0, _CONNECTING),
    ("rados_osd_op_timeout", 0.0, _REQUEST),
)
_AT_ONCE: Final = GiB  # bytes of a request that carries none; librbd takes less than 2^31
_THICK: Final = 1  # of rbd_write_zeroes: space is not given back
_STRIPED: Final = 1 << 1  # RBD_FEATURE_STRIPINGV2
_FAST_DIFF: Final = 1 << 4
_FAST_DIFF_INVALID: Final = 1 << 1
_ALIGNED: Final = (1, 17)  # before, rbd_diff_iterate2 counted wrongly from within an object
_SNAPSHOTS: Final = 100  # what is asked for first
_pointer = ctypes.c_void_p
_text = ctypes.c_char_p
_int = ctypes.c_int
_u64 = ctypes.c_uint64
_size = ctypes.c_size_t


class _Info(ctypes.Structure):
    """``rbd_image_info_t``."""

    _fields_ = (
        ("size", _u64),
        ("object_size", _u64),
        ("objects", _u64),
        ("order", _int),
        ("prefix", ctypes.c_char * 24),
        ("parent_pool", ctypes.c_int64),
        ("parent_name", ctypes.c_char * 96),
    )


class _Snapshot(ctypes.Structure):
    """``rbd_snap_info_t``."""

    _fields_ = (("id", _u64), ("size", _u64), ("name", _text))


class _Passphrase(ctypes.Structure):
    """``rbd_encryption_luks1_format_options_t``, and LUKS2's; the cipher is for new images."""

    _fields_ = (("algorithm", _int), ("passphrase", _text), ("length", _size))


_Found = ctypes.CFUNCTYPE(_int, _u64, _size, _int, _pointer)

_RADOS: Final[dict[str, tuple[Any, ...]]] = {
    # name: result, arguments
    "rados_create": (_int, ctypes.POINTER(_pointer), _text),
    "rados_conf_read_file": (_int, _pointer, _text),
    "rados_conf_set": (_int, _pointer, _text, _text),
    "rados_conf_get": (_int, _pointer, _text, _pointer, _size),
    "rados_connect": (_int, _pointer),
    "rados_shutdown": (None, _pointer),
    "rados_ioctx_create": (_int, _pointer, _text, ctypes.POINTER(_pointer)),
    "rados_ioctx_destroy": (None, _pointer),
    "rados_ioctx_set_namespace": (None, _pointer, _text),
}
_RBD: Final[dict[str, tuple[Any, ...]]] = {
    "rbd_version": (None, ctypes.POINTER(_int), ctypes.POINTER(_int), ctypes.POINTER(_int)),
    "rbd_namespace_exists": (_int, _pointer, _text, ctypes.POINTER(ctypes.c_bool)),
    "rbd_create": (_int, _pointer, _text, _u64, ctypes.POINTER(_int)),
    "rbd_remove": (_int, _pointer, _text),
    "rbd_open": (_int, _pointer, _text, ctypes.POINTER(_pointer), _text),
    "rbd_open_read_only": (_int, _pointer, _text, ctypes.POINTER(_pointer), _text),
    "rbd_close": (_int, _pointer),
    "rbd_stat": (_int, _pointer, ctypes.POINTER(_Info), _size),
    "rbd_get_size": (_int, _pointer, ctypes.POINTER(_u64)),
    "rbd_get_features": (_int, _pointer, ctypes.POINTER(_u64)),
    "rbd_get_flags": (_int, _pointer, ctypes.POINTER(_u64)),
    "rbd_get_parent_info": (_int, _pointer, _pointer, _size, _pointer, _size, _pointer, _size),
    "rbd_read": (ctypes.c_ssize_t, _pointer, _u64, _size, _pointer),
    "rbd_write": (ctypes.c_ssize_t, _pointer, _u64, _size, _pointer),
    "rbd_discard": (_int, _pointer, _u64, _u64),
    "rbd_write_zeroes": (ctypes.c_ssize_t, _pointer, _u64, _size, _int, _int),
    "rbd_flush": (_int, _pointer),
    "rbd_resize": (_int, _pointer, _u64),
    "rbd_diff_iterate2": (
        *(_int, _pointer, _text, _u64, _u64),
        *(ctypes.c_uint8, ctypes.c_uint8, _Found, _pointer),
    ),
    "rbd_snap_create": (_int, _pointer, _text),
    "rbd_snap_remove": (_int, _pointer, _text),
    "rbd_snap_rollback": (_int, _pointer, _text),
    "rbd_snap_list": (_int, _pointer, ctypes.POINTER(_Snapshot), ctypes.POINTER(_int)),
    "rbd_snap_list_end": (None, ctypes.POINTER(_Snapshot)),
    "rbd_encryption_format": (_int, _pointer, _int, _pointer, _size),
    "rbd_encryption_load": (_int, _pointer, _int, _pointer, _size),
}


class Snapshot(NamedTuple):
    """A snapshot of an image, which had ``size`` bytes then."""

    name: str
    size: int


class Encryption(NamedTuple):
    """Encryption that librbd does.

    Attributes:
        version: of LUKS, 1 or 2.
        passphrase: what opens it.
        bits: of the AES key, for a new image.
    """

    version: int
    passphrase: bytes
    bits: int = 256


def load_rados(signatures: Mapping[str, tuple[Any, ...]]) -> ctypes.CDLL:
    """The library of clusters, with these functions."""
    return shared_library.load("rbd", ("librados.so.2",), signatures, "Install the package librados2.")


def load_rbd(signatures: Mapping[str, tuple[Any, ...]]) -> ctypes.CDLL:
    """The library of images, with these functions."""
    return shared_library.load("rbd", ("librbd.so.1",), signatures, "Install the package librbd1, version 16 or newer.")


@functools.cache
def _rados() -> ctypes.CDLL:
    return load_rados(_RADOS)


@functools.cache
def _rbd() -> ctypes.CDLL:
    return load_rbd(_RBD)


class Cluster:
    """A connection to a cluster, and a pool of it.

    Args:
        user: whose key is used; None for the cluster's administrator.
    """

    def __init__(self, user: str | None) -> None:
        self._lib = _rados()
        self._rbd = _rbd()
        self._handle = _pointer()
        self._pool = _pointer()
        code = self._lib.rados_create(ctypes.byref(self._handle), None if user is None else os.fsencode(user))
        _require(code, "error initializing")

    def configure(self, path: str | None) -> None:
        """Read a configuration file, or the usual ones where they are there, and bound what is then without bounds.

        Raises:
            BlockError: the named file cannot be read.
        """
        code = self._lib.rados_conf_read_file(self._handle, None if path is None else os.fsencode(path))
        if path is not None:
            _require(code, f"error reading conf file {path}")
        for name, unset, seconds in _TIMEOUTS:
            found = ctypes.create_string_buffer(64)
            if not self._lib.rados_conf_get(self._handle, name.encode(), found, len(found)):
                with contextlib.suppress(ValueError):
                    if float(found.value) == unset:
                        self.set(name, str(seconds))

    def set(self, name: str, value: str) -> int:
        """Set one of Ceph's options; 0, or the negative errno."""
        code: int = self._lib.rados_conf_set(self._handle, os.fsencode(name), os.fsencode(value))
        return code

    def connect(self, pool: str, namespace: str | None) -> None:
        """Find the cluster, and the pool and the namespace in it.

        Raises:
            BlockError: the text is QEMU's.
        """
        _require(self._lib.rados_connect(self._handle), "error connecting")
        code = self._lib.rados_ioctx_create(self._handle, os.fsencode(pool), ctypes.byref(self._pool))
        _require(code, f"error opening pool {pool}")
        if not namespace:
            return
        exists = ctypes.c_bool()
        code = self._rbd.rbd_namespace_exists(self._pool, os.fsencode(namespace), ctypes.byref(exists))
        _require(code, "error checking namespace")
        if not exists.value:
            raise BlockError(f"namespace '{namespace}' does not exist", errno=errno.ENOENT)
        self._lib.rados_ioctx_set_namespace(self._pool, os.fsencode(namespace))

    def create(self, name: str, size: int, object_bits: int) -> None:
        """Create an image.

        Args:
            name: how it is called.
            size: bytes.
            object_bits: of an object's size; 0 for the cluster's own choice.

        Raises:
            BlockError: the text is QEMU's.
        """
        order = _int(object_bits)
        _require(self._rbd.rbd_create(self._pool, os.fsencode(name), size, ctypes.byref(order)), "error rbd create")

    def remove(self, name: str) -> None:
        """Take away an image that could not be made as it was to be."""
        self._rbd.rbd_remove(self._pool, os.fsencode(name))

    def open(self, name: str, snapshot: str | None, *, read_only: bool) -> Image:
        """Open an image, or a snapshot of one.

        Raises:
            BlockError: the text is QEMU's.
        """
        handle = _pointer()
        call = self._rbd.rbd_open_read_only if read_only else self._rbd.rbd_open
        encoded = None if snapshot is None else os.fsencode(snapshot)
        _require(
            call(self._pool, os.fsencode(name), ctypes.byref(handle), encoded), f"error reading header from {name}"
        )
        return Image(handle, name)

    def close(self) -> None:
        """Disconnect."""
        if self._pool:
            self._lib.rados_ioctx_destroy(self._pool)
            self._pool = _pointer()
        if self._handle:
            self._lib.rados_shutdown(self._handle)
            self._handle = _pointer()


class Image:
    """An open image. Any number of threads.

    Attributes:
        handle: librbd's.
        object_size: bytes.
    """

    def __init__(self, handle: ctypes.c_void_p, name: str) -> None:
        self._rbd = _rbd()
        self.handle = handle
        info = _Info()
        try:
            code = self._rbd.rbd_stat(handle, ctypes.byref(info), ctypes.sizeof(info))
            _require(code, f"error getting image info from {name}")
        except BaseException:
            self.close()
            raise
        self.object_size = int(info.object_size)

    def size(self) -> int:
        """Bytes."""
        size = _u64()
        _require(self._rbd.rbd_get_size(self.handle, ctypes.byref(size)), "cannot get the image's size")
        return size.value

    def read(self, offset: int, buf: memoryview) -> int:
        """Read as much as there is before the image's end."""
        done: int = self._rbd.rbd_read(self.handle, offset, len(buf), shared_library.memory(buf))
        _require(done, f"rbd request failed: read of {len(buf)} bytes at {offset}")
        return done

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``, which must lie within the image."""
        done: int = self._rbd.rbd_write(self.handle, offset, len(data), shared_library.memory(data))
        _require(done, f"rbd request failed: write of {len(data)} bytes at {offset}")
        if done != len(data):
            raise BlockError(f"rbd request failed: {done} of {len(data)} bytes were written", errno=errno.EIO)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range within the image; ``unmap`` gives its space back."""
        for start in range(offset, offset + length, _AT_ONCE):
            count = min(_AT_ONCE, offset + length - start)
            code = self._rbd.rbd_write_zeroes(self.handle, start, count, 0 if unmap else _THICK, 0)
            _require(code, f"rbd request failed: zeroing of {count} bytes at {start}")

    def discard(self, offset: int, length: int) -> None:
        """Give a range's space back."""
        for start in range(offset, offset + length, _AT_ONCE):
            count = min(_AT_ONCE, offset + length - start)
            code = self._rbd.rbd_discard(self.handle, start, count)
            _require(code, f"rbd request failed: discarding of {count} bytes at {start}")

    def flush(self) -> None:
        """Have the cluster store what was written."""
        _require(self._rbd.rbd_flush(self.handle), "rbd request failed: flush")

    def resize(self, size: int) -> None:
        """Set the image's size in bytes.

        Raises:
            BlockError: the text is QEMU's.
        """
        _require(self._rbd.rbd_resize(self.handle, size), "Failed to resize file")

    def tells_holes(self) -> bool:
        """Whether the image knows which of its objects exist, and :meth:`data` may be asked."""
        features, flags = _u64(), _u64()
        if self._rbd.rbd_get_features(self.handle, ctypes.byref(features)) or not features.value & _FAST_DIFF:
            return False
        if self._rbd.rbd_get_flags(self.handle, ctypes.byref(flags)) or flags.value & _FAST_DIFF_INVALID:
            return False
        return self._counts_rightly() or not (features.value & _STRIPED or self._is_clone())

    def _counts_rightly(self) -> bool:
        major, minor, extra = _int(), _int(), _int()
        self._rbd.rbd_version(ctypes.byref(major), ctypes.byref(minor), ctypes.byref(extra))
        return (major.value, minor.value) >= _ALIGNED

    def _is_clone(self) -> bool:
        code: int = self._rbd.rbd_get_parent_info(self.handle, None, 0, None, 0, None, 0)
        return code != -errno.ENOENT

    def data(self, offset: int, length: int) -> list[tuple[int, int]] | None:
        """The ranges that may hold data, by whole objects; None where it is not known after all.

        ``offset`` must be the start of an object: see :data:`_ALIGNED`.
        """
        found: list[tuple[int, int]] = []

        def note(start: int, count: int, exists: int, _: object) -> int:
            if exists:
                found.append((start, count))
            return 0

        code = self._rbd.rbd_diff_iterate2(self.handle, None, offset, length, 1, 1, _Found(note), None)
        return None if code < 0 else sorted(found)

    def snapshots(self) -> list[Snapshot]:
        """All of them."""
        room = _SNAPSHOTS
        while True:
            table, count = (_Snapshot * room)(), _int(room)
            code = self._rbd.rbd_snap_list(self.handle, table, ctypes.byref(count))
            if code != -errno.ERANGE:
                break
            room = max(2 * room, count.value)
        _require(code, "cannot list the snapshots")
        found = [Snapshot(os.fsdecode(each.name or b""), each.size) for each in table[:code]]
        if code:
            self._rbd.rbd_snap_list_end(table)
        return found

    def snapshot_create(self, name: str) -> None:
        """Keep the present state.

        Raises:
            BlockError: it failed.
        """
        _require(self._rbd.rbd_snap_create(self.handle, os.fsencode(name)), "failed to create snap")

    def snapshot_remove(self, name: str) -> None:
        """Drop a snapshot.

        Raises:
            BlockError: it failed; the text is QEMU's.
        """
        _require(self._rbd.rbd_snap_remove(self.handle, os.fsencode(name)), "Failed to remove the snapshot")

    def snapshot_rollback(self, name: str) -> None:
        """Go back to a snapshot's state.

        Raises:
            BlockError: it failed.
        """
        _require(self._rbd.rbd_snap_rollback(self.handle, os.fsencode(name)), "failed to roll back")

    def encrypt(self, encryption: Encryption) -> None:
        """Lay out encryption in a new image, which keeps the size that its user sees.

        Raises:
            BlockError: the text is QEMU's.
        """
        whole = self.size()
        self._with_passphrase(self._rbd.rbd_encryption_format, encryption, "encryption format fail")
        _require(self._rbd.rbd_resize(self.handle, 2 * whole - self.size()), "cannot resize image after format")

    def decrypt(self, encryption: Encryption) -> None:
        """Open encryption that is there.

        Raises:
            BlockError: the text is QEMU's.
        """
        self._with_passphrase(self._rbd.rbd_encryption_load, encryption, "encryption load fail")

    def _with_passphrase(self, call: Any, encryption: Encryption, what: str) -> None:
        algorithm = 0 if encryption.bits == 128 else 1
        options = _Passphrase(algorithm, encryption.passphrase, len(encryption.passphrase))
        code = call(self.handle, encryption.version - 1, ctypes.addressof(options), ctypes.sizeof(options))
        _require(code, what)

    def close(self) -> None:
        """Close it.

        Raises:
            BlockError: what was written could not be stored.
        """
        if self.handle:
            handle, self.handle = self.handle, _pointer()
            _require(self._rbd.rbd_close(handle), "cannot close the image")


def _require(code: int, what: str) -> None:
    if code < 0:
        raise BlockError(f"{what}: {os.strerror(-code)}", errno=-code)
