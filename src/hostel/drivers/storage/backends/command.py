"""The command lines by which pools are started, as libvirt's storage driver has them (``storage_util.c``)."""

from __future__ import annotations

from typing import Final

from hostel.model.storage import Pool, PoolSource, PoolTarget, PoolType

# What comes from a file system that somebody else may have made must not act on this host.
_SAFE: Final = ("nodev", "nosuid", "noexec")


def mount_command(pool: Pool) -> list[str]:
    """``mount``; a plain one finds out what a server speaks, ``-t auto`` does not."""
    source, target = pool.source or PoolSource(), pool.target or PoolTarget()
    format = source.format_type or "auto"
    options = list(_SAFE)
    if pool.type is PoolType.NETFS:
        if format == "glusterfs":
            options.append("direct-io-mode=1")
        elif format == "cifs":
            options.append("guest")
        elif source.protocol is not None:
            options.append(f"nfsvers={source.protocol}")
    if pool.mount_options is not None:
        options += [option.name for option in pool.mount_options.options]
    kind = [] if pool.type is PoolType.NETFS and format == "auto" else ["-t", format]
    return ["mount", "-o", ",".join(options), *kind, mount_source(pool), target.path or ""]


def mount_source(pool: Pool) -> str:
    """What is mounted: a device, or a server's directory as ``mount`` writes it."""
    source = pool.source or PoolSource()
    if pool.type is not PoolType.NETFS:
        return source.devices[0].path
    host, directory = source.hosts[0].name or "", source.dir or ""
    return f"//{host}/{directory}" if source.format_type == "cifs" else f"{host}:{directory}"


def activate_command(pool: Pool, *, active: bool) -> list[str]:
    """``vgchange``, for this host alone."""
    source = pool.source or PoolSource()
    return ["vgchange", "-aly" if active else "-aln", source.name or ""]
