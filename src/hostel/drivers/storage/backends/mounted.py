"""Pool types ``fs``, ``netfs`` and ``vstorage``: a file system that is mounted on a directory while the pool runs."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.backends.base import Overwrite, unsupported_flags
from hostel.drivers.storage.backends.command import mount_command, mount_source
from hostel.drivers.storage.backends.dir import DEFAULT_MODE, DirBackend
from hostel.drivers.storage.backends.discovery import gluster_sources
from hostel.drivers.storage.backends.finding import one_host
from hostel.drivers.storage.backends.probing import require_device, require_empty
from hostel.drivers.storage.document import PoolDefinition, model_of
from hostel.drivers.storage.holding import held, translating
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.source import Host as ServerName
from hostel.model.pool_sources import PoolSources
from hostel.model.storage import PoolSource, PoolType

# What makes each kind of file system overwrite what it finds, and the package that has it.
_FORCE: Final = {"xfs": "-f", "ext2": "-F", "ext3": "-F", "ext4": "-F", "vfat": "-I"}
_MAKERS: Final = {
    "ext2": "e2fsprogs", "ext3": "e2fsprogs", "ext4": "e2fsprogs", "xfs": "xfsprogs", "vfat": "dosfstools",
    "gfs2": "gfs2-utils", "ocfs2": "ocfs2-tools", "hfs+": "hfsprogs", "udf": "udftools",
}  # fmt: skip
# What mount calls for file systems of servers, by the package that has it.
_HELPERS: Final = {"nfs": "nfs-common", "cifs": "cifs-utils", "glusterfs": "glusterfs-client"}
_AT_ONCE: Final = 8  # files of a server that are opened at a time
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_EXPORT: Final = re.compile(r"(/.*\S) +\S+")  # a directory, in which there may be blanks, and who may mount it


class Mount(NamedTuple):
    """A line of the kernel's table of mounts."""

    source: str
    path: str


def mounts() -> list[Mount]:
    """What is mounted where, for this process."""
    with open("/proc/self/mountinfo", "rb") as table:
        rows = [line.decode("utf-8", "surrogateescape").split(" ") for line in table.read().splitlines()]
    return [Mount(_plain(row[row.index("-") + 2]), _plain(row[4])) for row in rows if "-" in row]


class _MountedBackend(DirBackend):
    """What mounted pools share."""

    def source(self, pool: PoolDefinition) -> str:
        """What is mounted, as the kernel's table has it."""
        return mount_source(model_of(pool))

    def command(self, pool: PoolDefinition) -> list[str]:
        """The command that mounts it."""
        return mount_command(model_of(pool))

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether it is mounted, and from where the pool says."""
        source = self.source(pool)
        return any(_same(mount.path, pool.path) and _same(mount.source, source) for mount in mounts())

    def start(self, pool: PoolDefinition) -> None:
        """Mount it; what is mounted already stays so."""
        if self.is_running(pool):
            return
        try:
            tool.run(self.command(pool))
        except VirtError as error:
            fix = _remedy(pool, error.message) if error.code is ErrorCode.INTERNAL_ERROR else None
            if fix is None:
                raise
            raise VirtError(error.code, f"{error.message}\n{fix}", domain=error.domain) from error

    def stop(self, pool: PoolDefinition) -> None:
        """Unmount it; what is not mounted is no error."""
        if self.is_running(pool):
            tool.run(["umount", pool.path])


def _remedy(pool: PoolDefinition, said: str) -> str | None:
    """What to do where ``mount`` failed with these words; None where they say it."""
    format = pool.source.format_type or "auto"
    helper = "nfs" if format == "auto" and pool.source.hosts else format
    if "mount point" in said and not os.path.isdir(pool.path):
        return f"virsh pool-build {pool.name} makes the directory"
    if helper in _HELPERS and ("bad option" in said or "unknown filesystem" in said):
        return f"there is no mount.{helper}: install the package {_HELPERS[helper]}"
    if pool.source.hosts and any(words in said for words in ("access denied by server", "given by server")):
        return f"showmount -e {pool.source.hosts[0].name} lists what it exports, and to whom"
    if os.geteuid() != 0:
        return "only root mounts: have the pool in qemu:///system, or mount it and have a pool of type dir there"
    return None


class FileSystemBackend(_MountedBackend):
    """Pool type ``fs``: a file system on a device."""

    def check(self, pool: PoolDefinition) -> None:
        """One device, by its whole path.

        Raises:
            VirtError: in libvirt's words.
        """
        super().check(pool)
        if len(pool.source.devices) != 1:
            raise _odd("expected exactly 1 device for the storage pool")
        require_device(pool.device, "source device")

    def _format(self, pool: PoolDefinition, overwrite: Overwrite) -> None:
        device, format = pool.device, pool.source.format_type or "auto"
        if not os.path.exists(device):
            detail = f"Source device does not exist when formatting pool '{pool.name}'"
            raise fault(ErrorCode.OPERATION_INVALID, detail, ErrorDomain.STORAGE)
        if format == "auto":
            raise _odd(
                f"pool '{pool.name}': source format 'auto' says nothing of which file system to make; "
                f"name one in source/format: {', '.join(_MAKERS)}"
            )
        if tool.find(f"mkfs.{format}") is None:
            raise VirtError(
                ErrorCode.SYSTEM_ERROR,
                f"Cannot find 'mkfs.{format}' in path: No such file or directory; "
                f"install the package {_MAKERS.get(format, f'that makes {format}')}",
                domain=ErrorDomain.STORAGE,
            )
        if overwrite is Overwrite.NEVER:
            require_empty(device, format)
        # Who uses it is told here; the tools differ in what they look at.
        with translating(f"cannot format device '{device}'", pool.name, device), held(device, device):
            pass
        tool.run(["mkfs", "-t", format, *([_FORCE[format]] if format in _FORCE else []), device])


class NetworkFileSystemBackend(_MountedBackend):
    """Pool type ``netfs``: a directory of a server."""

    at_once = _AT_ONCE

    def check(self, pool: PoolDefinition) -> None:
        """One server, and a directory of it.

        Raises:
            VirtError: in libvirt's words.
        """
        super().check(pool)
        if len(pool.source.hosts) != 1:
            raise _odd("expected exactly 1 host for the storage pool")
        if (pool.source.hosts[0].name or "").startswith("-"):
            raise _odd(f"'{pool.source.hosts[0].name}' is no name of a host")

    def find_sources(self, source: PoolSource | None) -> PoolSources:
        """The directories that a server exports, and its volumes of Gluster's.

        Raises:
            VirtError: ``OPERATION_FAILED``; it has neither.
        """
        host, _ = one_host(source, "netfs")
        failure: VirtError | None = None
        found: list[PoolSource] = []
        try:
            exported = tool.run(["showmount", "--no-headers", "--exports", host]).out
        except VirtError as error:
            failure = error
        else:
            for line in exported.splitlines():
                match = _EXPORT.fullmatch(line.rstrip())
                if match is not None and not match[1].endswith("/"):
                    found.append(PoolSource(hosts=[ServerName(name=host)], dir=match[1], format_type="nfs"))
        found += volumes_of(host, PoolType.NETFS) if tool.find("gluster") else []
        if not found and failure is not None:
            detail = f"no storage pools were found on host '{host}': {failure}"
            raise fault(ErrorCode.OPERATION_FAILED, detail, ErrorDomain.STORAGE)
        return PoolSources(sources=found)


class VirtuozzoBackend(_MountedBackend):
    """Pool type ``vstorage``: a cluster of Virtuozzo's."""

    at_once = _AT_ONCE

    def check(self, pool: PoolDefinition) -> None:
        """A name that is none of an option.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``.
        """
        super().check(pool)
        if pool.source_name.startswith("-"):
            raise _odd(f"'{pool.source_name}' is no name of a cluster")

    def build(self, pool: PoolDefinition, overwrite: Overwrite) -> None:
        """Make the directory; there is no device to format."""
        unsupported_flags(pool, overwrite)
        super().build(pool, overwrite)

    def source(self, pool: PoolDefinition) -> str:
        """The cluster as the kernel's table has it."""
        return f"vstorage://{pool.source_name}"

    def command(self, pool: PoolDefinition) -> list[str]:
        """The command that mounts it; it takes names of the owner and the group."""
        mode, owner, group, _ = pool.permissions
        try:
            user = pwd.getpwuid(os.geteuid() if owner is None else owner).pw_name
            members = grp.getgrgid(os.getegid() if group is None else group).gr_name
        except KeyError as error:
            raise fault(ErrorCode.SYSTEM_ERROR, str(error.args[0]), ErrorDomain.STORAGE) from None
        shown = f"{DEFAULT_MODE if mode is None else mode:o}"
        return ["vstorage-mount", "-c", pool.source_name, pool.path, "-m", shown, "-g", members, "-u", user]


def volumes_of(host: str, type: PoolType) -> list[PoolSource]:
    """The volumes that a server of Gluster's has; none where it cannot be asked."""
    command = ["gluster", "--xml", "--log-file=/dev/null", "volume", "info", "all", f"--remote-host={host}"]
    ended = tool.run(command, expected=range(256))
    return gluster_sources(host, ended.out, type).sources if ended.code == 0 else []


def _plain(word: str) -> str:
    """A name of the kernel's table without its escapes."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), word)


def _same(one: str, other: str) -> bool:
    """Whether two names are the same place; a name of another host's is only itself."""
    return one == other or (
        one.startswith("/") and other.startswith("/") and os.path.realpath(one) == os.path.realpath(other)
    )


def _odd(detail: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
