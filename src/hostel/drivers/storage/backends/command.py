"""The command lines by which pools are started, as libvirt's storage driver has them (``storage_util.c``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.storage import Pool, PoolSource, PoolTarget, PoolType

# What comes from a file system that somebody else may have made must not act on this host.
_SAFE: Final = ("nodev", "nosuid", "noexec")


def mount_command(pool: Pool) -> list[str]:
    """``mount``; a plain one finds out what a server speaks, ``-t auto`` does not.

    Raises:
        ModelError: a name is one that ``mount`` would take for an option.
    """
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
    return ["mount", "-o", ",".join(options), *kind, mount_source(pool), _operand(target.path, "/pool/target/path")]


def mount_source(pool: Pool) -> str:
    """What is mounted: a device, or a server's directory as ``mount`` writes it.

    Raises:
        ModelError: it is what ``mount`` would take for an option.
    """
    source = pool.source or PoolSource()
    if pool.type is not PoolType.NETFS:
        return _operand(source.devices[0].path, "/pool/source/device/@path")
    host, directory = source.hosts[0].name, source.dir or ""
    if source.format_type == "cifs":
        return f"//{host or ''}/{directory}"
    return f"{_operand(host, '/pool/source/host/@name')}:{directory}"


def activate_command(pool: Pool, *, active: bool) -> list[str]:
    """``vgchange``, for this host alone.

    Raises:
        ModelError: the name is one that ``vgchange`` would take for an option.
    """
    source = pool.source or PoolSource()
    return ["vgchange", "-aly" if active else "-aln", _operand(source.name, "/pool/source/name")]


def _operand(text: str | None, path: str) -> str:
    """What comes from a document and has to be no option to a command."""
    if text is not None and text.startswith("-"):
        raise ModelError(
            path, f"'{text}' begins with '-', which is an option; write another name", code=ErrorCode.XML_ERROR
        )
    return text or ""
