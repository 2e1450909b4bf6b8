"""A pool of a Ceph cluster as a whole: its images, how full it is, and clones in it."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import secrets
from typing import Any, Final, NamedTuple

from hostel.block.protocols.rbd.library import Cluster, Image, load_rados, load_rbd
from hostel.errors import BlockError
from hostel.units import KiB

_pointer = ctypes.c_void_p
_text = ctypes.c_char_p
_int = ctypes.c_int
_u64 = ctypes.c_uint64
_size = ctypes.c_size_t
_POOL_NUMBERS: Final = 32  # of rados_pool_stat_t, and more than any version has
_FIRST: Final = 64  # images that are asked for first


class _Spec(ctypes.Structure):
    """``rbd_image_spec_t``."""

    _fields_ = (("id", _text), ("name", _text))


_RADOS: Final[dict[str, tuple[Any, ...]]] = {
    # name: result, arguments
    "rados_cluster_stat": (_int, _pointer, ctypes.POINTER(_u64)),
    "rados_ioctx_pool_stat": (_int, _pointer, ctypes.POINTER(_u64)),
}
_RBD: Final[dict[str, tuple[Any, ...]]] = {
    "rbd_list2": (_int, _pointer, ctypes.POINTER(_Spec), ctypes.POINTER(_size)),
    "rbd_image_spec_list_cleanup": (None, ctypes.POINTER(_Spec), _size),
    "rbd_remove": (_int, _pointer, _text),
    "rbd_get_old_format": (_int, _pointer, ctypes.POINTER(ctypes.c_uint8)),
    "rbd_get_features": (_int, _pointer, ctypes.POINTER(_u64)),
    "rbd_get_stripe_unit": (_int, _pointer, ctypes.POINTER(_u64)),
    "rbd_get_stripe_count": (_int, _pointer, ctypes.POINTER(_u64)),
    "rbd_snap_is_protected": (_int, _pointer, _text, ctypes.POINTER(_int)),
    "rbd_snap_protect": (_int, _pointer, _text),
    "rbd_snap_unprotect": (_int, _pointer, _text),
    "rbd_diff_iterate2": (
        *(_int, _pointer, _text, _u64, _u64),
        *(ctypes.c_uint8, ctypes.c_uint8, _pointer, _pointer),
    ),
    "rbd_clone2": (
        *(_int, _pointer, _text, _text, _pointer, _text),
        *(_u64, ctypes.POINTER(_int), _u64, _int),
    ),
}
_Found = ctypes.CFUNCTYPE(_int, _u64, _size, _int, _pointer)


@functools.cache
def _rados() -> ctypes.CDLL:
    return load_rados(_RADOS)


@functools.cache
def _rbd() -> ctypes.CDLL:
    return load_rbd(_RBD)


class Usage(NamedTuple):
    """Bytes: what the cluster has, what of it is free, and what the pool's objects are."""

    capacity: int
    available: int
    stored: int


class ImagePool(Cluster):
    """A connection to a cluster, and a pool of it whose images are managed."""

    def usage(self) -> Usage:
        """How full the cluster and the pool are."""
        cluster = (_u64 * 4)()
        _require(_rados().rados_cluster_stat(self._handle, cluster), "failed to stat the RADOS cluster")
        pool = (_u64 * _POOL_NUMBERS)()
        _require(_rados().rados_ioctx_pool_stat(self._pool, pool), "failed to stat the RADOS pool")
        return Usage(cluster[0] * KiB, cluster[2] * KiB, pool[0])

    def names(self) -> list[str]:
        """The images of the pool; none is opened."""
        room = _FIRST
        while True:
            table, count = (_Spec * room)(), _size(room)
            code = _rbd().rbd_list2(self._pool, table, ctypes.byref(count))
            if code != -errno.ERANGE:
                break
            room = max(2 * room, count.value)
        _require(code, "Unable to list RBD images")
        found = [os.fsdecode(each.name or b"") for each in table[: count.value]]
        _rbd().rbd_image_spec_list_cleanup(table, count.value)
        return found

    def delete(self, name: str) -> None:
        """Remove an image; one that is gone already is no error.

        Raises:
            BlockError: somebody has it open, or it has snapshots.
        """
        code = _rbd().rbd_remove(self._pool, os.fsencode(name))
        if code != -errno.ENOENT:
            _require(code, f"failed to remove image '{name}'")

    def drop_snapshots(self, name: str) -> None:
        """Remove every snapshot of an image, protected ones too.

        Raises:
            BlockError: one is the ground of a clone.
        """
        image = self.open(name, None, read_only=False)
        try:
            for snapshot in image.snapshots():
                if self._is_protected(image, snapshot.name):
                    code = _rbd().rbd_snap_unprotect(image.handle, os.fsencode(snapshot.name))
                    _require(code, f"failed to unprotect snapshot '{name}@{snapshot.name}'")
                image.snapshot_remove(snapshot.name)
        finally:
            image.close()

    def clone(self, name: str, new: str) -> None:
        """Make an image that shares what another has now, by a snapshot of it that is protected from then on.

        Raises:
            BlockError: it failed; an image of the old format cannot be cloned (``EOPNOTSUPP``).
        """
        image = self.open(name, None, read_only=False)
        try:
            old = ctypes.c_uint8()
            _require(_rbd().rbd_get_old_format(image.handle, ctypes.byref(old)), f"failed to get the format of {name}")
            if old.value:
                text = f"RBD image {name} is old format. Does not support extended features and striping"
                raise BlockError(text, errno=errno.EOPNOTSUPP)
            features, unit, count = (
                self._number(image, which) for which in ("features", "stripe_unit", "stripe_count")
            )
            snapshot = self._unchanged(image) or self._snapshot(image)
            if not self._is_protected(image, snapshot):
                code = _rbd().rbd_snap_protect(image.handle, os.fsencode(snapshot))
                _require(code, f"failed to protect RBD snapshot {name}@{snapshot}")
            words = (os.fsencode(name), os.fsencode(snapshot), self._pool, os.fsencode(new))
            code = _rbd().rbd_clone2(self._pool, *words, features, ctypes.byref(_int()), unit, count)
            _require(code, f"failed to clone RBD volume {name} to {new}")
        finally:
            image.close()

    def _unchanged(self, image: Image) -> str | None:
        """A snapshot since which nothing has been written: a clone needs no new one."""
        size = image.size()
        for snapshot in image.snapshots():
            changed: list[int] = []

            def note(start: int, _count: int, _exists: int, _: object, changed: list[int] = changed) -> int:
                changed.append(start)
                return -1  # one is enough

            call = _Found(note)
            name = os.fsencode(snapshot.name)
            code = _rbd().rbd_diff_iterate2(image.handle, name, 0, size, 0, 1, ctypes.cast(call, _pointer), None)
            if not changed and code >= 0 and snapshot.size == size:
                return snapshot.name
        return None

    def _snapshot(self, image: Image) -> str:
        name = f"libvirt-{secrets.randbelow(65534)}"
        image.snapshot_create(name)
        return name

    def _is_protected(self, image: Image, snapshot: str) -> bool:
        found = _int()
        code = _rbd().rbd_snap_is_protected(image.handle, os.fsencode(snapshot), ctypes.byref(found))
        _require(code, f"failed to verify if snapshot '{snapshot}' is protected")
        return bool(found.value)

    def _number(self, image: Image, which: str) -> int:
        found = _u64()
        code = getattr(_rbd(), f"rbd_get_{which}")(image.handle, ctypes.byref(found))
        _require(code, f"failed to get the {which} of an RBD image")
        return found.value


def _require(code: int, doing: str) -> None:
    if code < 0:
        raise BlockError(f"{doing}: {os.strerror(-code)}", errno=-code)
