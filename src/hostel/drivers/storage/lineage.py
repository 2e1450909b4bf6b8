"""Which volumes may be read through their backing chain.

A volume's metadata is the volume's own claim: one that names ``/etc/shadow`` as its backing file would have us copy it
into a clone. A chain is followed only where every image in it lies in an active pool and says its backing's format.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from hostel.block import filename
from hostel.block.driver import Reference
from hostel.block.graph import MAX_CHAIN
from hostel.block.node import BlockNode
from hostel.drivers.fault import fault, printable
from hostel.drivers.storage.inspect import open_untrusted
from hostel.errors import ErrorCode, ErrorDomain, VirtError


def check(name: str, path: str, format: str, directories: Collection[str]) -> None:
    """Look through an image's backing chain, opening each image alone: all of it is in ``directories`` (real paths).

    Raises:
        VirtError: ``OPERATION_INVALID`` when some part is not, naming it.
        BlockError: an image of the chain is broken.
    """
    current, kind = path, format
    for _ in range(MAX_CHAIN):
        with open_untrusted(current, kind) as node:
            references = node.driver.references()
        if not references:
            return
        if len(references) > 1 or references[0].child != "backing":
            raise _refuse(name, references[0].filename, "which is no backing file")
        current, kind = _follow(name, current, references[0], directories)
    raise _refuse(name, current, f"and more than {MAX_CHAIN} images in all")


def confirm(name: str, node: BlockNode, directories: Collection[str]) -> None:
    """Make sure of an open image's chain: since :func:`check`, somebody may have recorded another.

    Raises:
        VirtError: ``OPERATION_INVALID``.
    """
    below = node.backing
    while below is not None:
        if os.path.dirname(os.path.realpath(below.filename)) not in directories:
            raise _refuse(name, below.filename, "which is in no active pool")
        below = below.backing


def _follow(name: str, holder: str, reference: Reference, directories: Collection[str]) -> tuple[str, str]:
    recorded = reference.filename
    if filename.protocol(recorded) is not None:
        raise _refuse(name, recorded, "which is no plain path")
    below = os.path.realpath(filename.resolve(recorded, os.path.realpath(holder)))
    if os.path.dirname(below) not in directories:
        raise _refuse(name, recorded, "which is in no active pool: define and start a pool on its directory first")
    if not os.path.isfile(below):
        raise _refuse(name, recorded, "which is no regular file")
    if reference.format is None:
        raise _refuse(name, recorded, "whose format is not recorded: record it with 'qemu-img rebase -u -F'")
    return below, reference.format


def _refuse(name: str, recorded: str, why: str) -> VirtError:
    return fault(
        ErrorCode.OPERATION_INVALID, f"volume '{name}' stands on '{printable(recorded)}', {why}", ErrorDomain.STORAGE
    )
