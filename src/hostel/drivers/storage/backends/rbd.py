"""Pool type ``rbd``: the images of a pool of a Ceph cluster, by librados and librbd."""

from __future__ import annotations

import base64
import contextlib
import errno
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from hostel.block.protocols.rbd.library import Image
from hostel.block.protocols.rbd.pool import ImagePool
from hostel.drivers.base import Progress, VolumeCreateFlag, VolumeResizeFlag, VolumeType, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage.backends.base import Backend, Listed, Source, unsupported
from hostel.drivers.storage.backends.device import unreachable
from hostel.drivers.storage.backends.finding import port_of
from hostel.drivers.storage.backends.library import translating_library
from hostel.drivers.storage.document import Permissions, PoolDefinition, PoolSizes, VolumeDefinition, VolumeFacts
from hostel.errors import BlockError, ErrorCode, ErrorDomain, VirtError

# Seconds after which a cluster is away; libvirt's.
_BOUNDS: Final = ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")
_PATIENCE: Final = "30"
_AWAY: Final = (errno.ENOENT, errno.ETIMEDOUT)  # an image that went, or that cannot be read at the moment


class RbdBackend(Backend):
    """A pool of a cluster, or a namespace in it: ``pool/namespace``."""

    def check(self, pool: PoolDefinition) -> None:
        """Authentication that Ceph has.

        Raises:
            VirtError: ``XML_ERROR``.
        """
        for host in pool.source.hosts:
            port_of(host.port)
        if pool.source.auth is not None and pool.source.auth.type != "ceph":
            raise fault(ErrorCode.XML_ERROR, "rbd pool only supports 'ceph' auth type", ErrorDomain.STORAGE)

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Make sure that the cluster answers."""
        self.describe(pool)
        return pool

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The cluster's size, what is free in it, and what the pool holds."""
        with self._connected(pool) as cluster:
            usage = cluster.usage()
        return pool, PoolSizes(usage.capacity, usage.stored, usage.available)

    def listing(self, pool: PoolDefinition) -> Iterator[Listed]:
        """Every image; none is opened."""
        with self._connected(pool) as cluster:
            names = cluster.names()
        for name in names:
            path = f"{pool.source_name}/{name}"
            yield Listed(name, path, path)

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """The facts of every image that can be opened."""
        with self._connected(pool) as cluster:
            found = [self._facts(pool, cluster, name) for name in cluster.names()]
        return [facts for facts in found if facts is not None]

    def volume(self, pool: PoolDefinition, name: str) -> VolumeFacts | None:
        """The facts of an image."""
        with self._connected(pool) as cluster:
            return self._facts(pool, cluster, name)

    def create(self, pool: PoolDefinition, volume: VolumeDefinition, flags: VolumeCreateFlag) -> None:
        """Make an image.

        Raises:
            VirtError: it has no capacity (``NO_SUPPORT``), or another format (``CONFIG_UNSUPPORTED``).
        """
        _check_new(volume, flags)
        if not volume.capacity:
            raise unsupported("volume capacity required for this storage pool")
        with self._connected(pool, f"failed to create volume '{pool.source_name}/{volume.name}'") as cluster:
            cluster.create(volume.name, volume.capacity, 0)

    def create_from(
        self,
        pool: PoolDefinition,
        volume: VolumeDefinition,
        source: Source,
        flags: VolumeCreateFlag,
        progress: Progress | None,
    ) -> None:
        """Clone an image of the same pool: what they have in common is stored once."""
        _check_new(volume, flags)
        if source.facts.type is not VolumeType.NETWORK:
            raise unsupported(
                f"pool '{pool.name}' clones its own volumes alone: write this one into it with "
                f"'qemu-img convert {source.facts.path} rbd:{pool.source_name}/{volume.name}'"
            )
        if source.pool is None or source.pool.type != pool.type or source.pool.source != pool.source:
            raise unreachable(source.facts)
        with self._connected(pool, f"failed to clone volume '{source.facts.path}'") as cluster:
            cluster.clone(source.facts.name, volume.name)
            if (volume.capacity or 0) > source.facts.capacity:
                with _opened(cluster, volume.name, read_only=False) as image:
                    image.resize(volume.capacity or 0)

    def remove(self, pool: PoolDefinition, volume: VolumeFacts, *, snapshots: bool) -> None:
        """Remove an image that nobody has open."""
        with self._connected(pool, f"failed to remove volume '{volume.path}'") as cluster:
            if snapshots:
                cluster.drop_snapshots(volume.name)
            try:
                cluster.delete(volume.name)
            except BlockError as error:
                raise _explained(volume, error) from error

    def resize(
        self,
        pool: PoolDefinition,
        volume: VolumeFacts,
        capacity: int,
        flags: VolumeResizeFlag,
        directories: Collection[str],
    ) -> None:
        """Set an image's size."""
        if flags & VolumeResizeFlag.ALLOCATE:
            detail = "a Ceph cluster allocates when something is written: leave out --allocate"
            raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)
        doing = f"failed to resize the RBD image '{volume.name}'"
        with self._connected(pool, doing) as cluster, _opened(cluster, volume.name, read_only=False) as image:
            image.resize(capacity)

    def wipe(
        self, pool: PoolDefinition, volume: VolumeFacts, algorithm: WipeAlgorithm, progress: Progress | None
    ) -> None:
        """Write zeroes over an image, or give all of its space back.

        Raises:
            VirtError: ``INVALID_ARG`` for another algorithm.
        """
        if algorithm not in (WipeAlgorithm.ZERO, WipeAlgorithm.TRIM):
            raise fault(ErrorCode.INVALID_ARG, f"unsupported algorithm {algorithm.value}", ErrorDomain.STORAGE)
        doing = f"failed to wipe the RBD image '{volume.name}'"
        with self._connected(pool, doing) as cluster, _opened(cluster, volume.name, read_only=False) as image:
            size = image.size()
            zeroes = memoryview(bytes(image.object_size))
            for offset in range(0, size, len(zeroes)):
                length = min(len(zeroes), size - offset)
                if algorithm is WipeAlgorithm.ZERO:
                    image.write(offset, zeroes[:length])
                else:
                    image.discard(offset, length)
                if progress is not None:
                    progress(offset + length, size)
            image.flush()

    def _facts(self, pool: PoolDefinition, cluster: ImagePool, name: str) -> VolumeFacts | None:
        try:
            with _opened(cluster, name, read_only=True) as image:
                size = image.size()
                allocation = -(-size // image.object_size) * image.object_size
                wanted = pool.refresh.volume.allocation if pool.refresh and pool.refresh.volume else None
                if wanted == "default" and image.tells_holes():
                    data = image.data(0, size)
                    allocation = allocation if data is None else sum(length for _, length in data)
        except BlockError as error:
            if error.errno in _AWAY:
                return None
            raise
        path = f"{pool.source_name}/{name}"
        return VolumeFacts(name, path, VolumeType.NETWORK, "raw", size, allocation, 0, Permissions(), None)

    @contextlib.contextmanager
    def _connected(self, pool: PoolDefinition, doing: str = "") -> Iterator[ImagePool]:
        monitors = ",".join(
            (f"[{host.name}]" if ":" in (host.name or "") else host.name or "") + (f":{host.port}" if host.port else "")
            for host in pool.source.hosts
        )
        what = doing or f"failed to connect to the RADOS monitor on: {monitors or 'the usual places'}"
        with translating_library(what):
            cluster = ImagePool(None if pool.source.auth is None else pool.source.auth.username)
            try:
                self._configure(pool, cluster, monitors)
                name, _, namespace = pool.source_name.partition("/")
                cluster.connect(name, namespace or None)
                yield cluster
            finally:
                cluster.close()

    def _configure(self, pool: PoolDefinition, cluster: ImagePool, monitors: str) -> None:
        if not monitors:
            cluster.configure(None)  # the host's own configuration says where
        settings = dict.fromkeys(_BOUNDS, _PATIENCE)
        if monitors:
            settings["mon_host"] = monitors
            settings["auth_supported"] = "none" if pool.source.auth is None else "cephx"
        settings["rbd_default_format"] = "2"
        auth = pool.source.auth
        if auth is not None and auth.secret is not None:
            settings["key"] = base64.b64encode(self.host.secret(auth.secret, "ceph")).decode()
        for option in pool.rbd_options.options if pool.rbd_options is not None else ():
            settings[option.name] = option.value
        for name, value in settings.items():
            if cluster.set(name, value):
                raise fault(
                    ErrorCode.INTERNAL_ERROR, f"failed to set RADOS option: {name}: no such option", ErrorDomain.STORAGE
                )


@contextlib.contextmanager
def _opened(cluster: ImagePool, name: str, *, read_only: bool) -> Iterator[Image]:
    image = cluster.open(name, None, read_only=read_only)
    try:
        yield image
    finally:
        image.close()


def _check_new(volume: VolumeDefinition, flags: VolumeCreateFlag) -> None:
    if volume.encryption is not None:
        detail = "storage pool does not support encrypted volumes"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
    if volume.format != "raw":
        detail = "only RAW volumes are supported by this storage pool"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
    if flags & VolumeCreateFlag.PREALLOC_METADATA:
        detail = "an image of a Ceph cluster has no metadata to preallocate"
        raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)


def _explained(volume: VolumeFacts, error: BlockError) -> VirtError:
    """Why an image is not removed, and what can be done about it."""
    detail = f"failed to remove volume '{volume.path}': {error}"
    if error.errno == errno.ENOTEMPTY:
        detail += "; it has snapshots: remove them too with --delete-snapshots"
    elif error.errno == errno.EBUSY:
        detail += "; somebody has it open: 'rbd status' names who"
    return VirtError(ErrorCode.SYSTEM_ERROR, detail, domain=ErrorDomain.STORAGE)
