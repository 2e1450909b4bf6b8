"""Pool type ``gluster``: the files of a folder of a Gluster volume, by libgfapi."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from hostel.block import probe
from hostel.block.blockdev import Described, flatten, from_options
from hostel.block.protocols.gluster.folder import Status, VolumeFolder, is_folder
from hostel.block.protocols.gluster.library import Log, Server
from hostel.drivers.base import VolumeType
from hostel.drivers.fault import fault
from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.backends.base import Backend, Listed, refuse_snapshots
from hostel.drivers.storage.backends.finding import one_host, port_of
from hostel.drivers.storage.backends.library import translating_library
from hostel.drivers.storage.backends.mounted import volumes_of
from hostel.drivers.storage.document import VOLUME_FORMATS, Permissions, PoolDefinition, PoolSizes, VolumeFacts
from hostel.drivers.storage.inspect import image_facts
from hostel.errors import BlockError, ErrorCode, ErrorDomain, VirtError
from hostel.model.pool_sources import PoolSources
from hostel.model.storage import PoolSource, PoolType

_PORT: Final = 24007
_QUIET: Final = Log("/dev/null", 0)
_GONE: Final = (errno.ENOENT, errno.ELOOP)  # removed meanwhile, or a link that leads nowhere


class GlusterBackend(Backend):
    """A folder of a volume."""

    def check(self, pool: PoolDefinition) -> None:
        """A volume's name, and a folder from the volume's root.

        Raises:
            VirtError: ``XML_ERROR``.
        """
        if "/" in pool.source_name:
            raise _wrong(f"gluster pool name '{pool.source_name}' must not contain /")
        if not (pool.source.dir or "/").startswith("/"):
            raise _wrong(f"gluster pool path '{pool.source.dir}' must start with /")
        one_host(pool.source, "gluster")

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Make sure that the volume answers, and has the folder."""
        self.describe(pool)
        return pool

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The sizes of the volume's file system."""
        with self._connected(pool) as volume:
            volume.names(_folder(pool))
            capacity, free = volume.room(_folder(pool))
        return pool, PoolSizes(capacity, capacity - free, free)

    def listing(self, pool: PoolDefinition) -> Iterator[Listed]:
        """Every file and folder; none is opened."""
        with self._connected(pool) as volume:
            names = [name for name in volume.names(_folder(pool)) if _status(volume, pool, name) is not None]
        for name in names:
            uri = _uri(pool, name)
            yield Listed(name, uri, uri)

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """The facts of every file and folder."""
        with self._connected(pool) as volume:
            found = [_facts(volume, pool, name) for name in volume.names(_folder(pool))]
        return [facts for facts in found if facts is not None]

    def volume(self, pool: PoolDefinition, name: str) -> VolumeFacts | None:
        """The facts of a file."""
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            return None
        with self._connected(pool) as volume:
            return _facts(volume, pool, name)

    def remove(self, pool: PoolDefinition, volume: VolumeFacts, *, snapshots: bool) -> None:
        """Remove a file, or an empty folder; one that is gone already is no error."""
        refuse_snapshots(pool, snapshots)
        is_dir = volume.type is VolumeType.NETDIR
        what = f"cannot remove gluster volume {'dir' if is_dir else 'file'} '{volume.path}'"
        with self._connected(pool, what) as server:
            path = _folder(pool) + volume.name
            try:
                server.rmdir(path) if is_dir else server.unlink(path)
            except BlockError as error:
                if error.errno != errno.ENOENT:
                    raise

    def find_sources(self, source: PoolSource | None) -> PoolSources:
        """The volumes that a server has.

        Raises:
            VirtError: it cannot be asked (``INTERNAL_ERROR``), or has none (``OPERATION_FAILED``).
        """
        host, _ = one_host(source, "gluster")
        if tool.find("gluster") is None:
            detail = f"'gluster' command line tool not found; install the package {tool.PACKAGES['gluster']}"
            raise fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)
        found = volumes_of(host, PoolType.GLUSTER)
        if not found:
            detail = f"no storage pools were found on host '{host}'"
            raise fault(ErrorCode.OPERATION_FAILED, detail, ErrorDomain.STORAGE)
        return PoolSources(sources=found)

    @contextlib.contextmanager
    def _connected(self, pool: PoolDefinition, doing: str = "") -> Iterator[VolumeFolder]:
        host = pool.source.hosts[0]
        server = Server("tcp", host.name or "", port_of(host.port) or _PORT)
        with translating_library(doing or f"failed to use {_uri(pool, '')}"):
            with translating_library(f"failed to connect to {_uri(pool, '')}"):
                volume = VolumeFolder(pool.source_name, [server], _QUIET)
            try:
                yield volume
            finally:
                volume.close()


def _facts(volume: VolumeFolder, pool: PoolDefinition, name: str) -> VolumeFacts | None:
    status = _status(volume, pool, name)
    if status is None:
        return None
    uri = _uri(pool, name)
    permissions = Permissions(stat.S_IMODE(status.mode) & 0o777, status.owner, status.group)
    sizes = (status.size, status.allocated, status.size)
    if is_folder(status):
        return VolumeFacts(name, uri, VolumeType.NETDIR, "dir", *sizes, permissions, status.times)
    facts = VolumeFacts(name, uri, VolumeType.NETWORK, "raw", *sizes, permissions, status.times)
    head = volume.bytes_at(_folder(pool) + name, 0, probe.HEAD_LENGTH)
    format = probe.detect(head, "")
    return (
        facts
        if format == "raw" or format not in VOLUME_FORMATS
        else image_facts(facts, format, _image(pool, name, format))
    )


def _image(pool: PoolDefinition, name: str, format: str) -> Described:
    """A file of the pool as an image, opened in silence: the library would tell whoever looks at standard error."""
    host = pool.source.hosts[0]
    file = {
        "driver": "gluster",
        "volume": pool.source_name,
        "path": _folder(pool) + name,
        "server": [{"type": "inet", "host": host.name, "port": str(port_of(host.port) or _PORT)}],
        "logfile": _QUIET.path,
        "debug": _QUIET.level,
    }
    return from_options(dict(flatten({"driver": format, "file": file})))


def _status(volume: VolumeFolder, pool: PoolDefinition, name: str) -> Status | None:
    try:
        return volume.status(_folder(pool) + name)
    except BlockError as error:
        if error.errno in _GONE:
            return None
        raise


def _folder(pool: PoolDefinition) -> str:
    return (pool.source.dir or "/").rstrip("/") + "/"


def _uri(pool: PoolDefinition, name: str) -> str:
    """A file of the pool, as QEMU names it."""
    host = pool.source.hosts[0]
    address = f"[{host.name}]" if ":" in (host.name or "") else host.name
    port = port_of(host.port)
    return f"gluster://{address}{f':{port}' if port else ''}/{quote(pool.source_name + _folder(pool) + name)}"


def _wrong(detail: str) -> VirtError:
    return fault(ErrorCode.XML_ERROR, detail, ErrorDomain.STORAGE)
