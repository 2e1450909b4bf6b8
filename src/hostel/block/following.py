"""What names lead to: those that we are given, and those that an image claims for what it stands on.

No image is opened here, but to see which one is the parent that is meant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from hostel.block import blockdev, parent, registry
from hostel.block import filename as names
from hostel.block.blockdev import Described
from hostel.block.driver import Reference
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.errors import InvalidImage, UntrustedReference


def describe(filename: str, format: str | None, options: Mapping[str, Value] | None = None) -> Described:
    """What a name stands for: a path, a protocol's name, or ``json:{...}``.

    Args:
        filename: the name.
        format: the format driver's name; None where it is to be guessed.
        options: the format driver's runtime options, converted.

    Raises:
        BlockError: what ``json:`` says is not understood.
    """
    if not filename.startswith(blockdev.JSON_PREFIX):
        scheme = names.protocol(filename)
        if format in registry.FILTERS:
            return blockdev.from_options(blockdev.with_filename({"driver": format}, filename))
        if (
            scheme is not None
            and scheme not in registry.FILES
            and (filtered := blockdev.from_filename(filename)) is not None
        ):
            return Described("", format, dict(options or {}), filename, children={"file": filtered})
        name = names.of_path(filename.removeprefix(f"{scheme}:")) if scheme in registry.FILES else filename
        # "file:" says nothing about a path, and is no part of the name that it is called by.
        return Described(name if scheme == "file" else filename, format, dict(options or {}), name or filename)
    image = blockdev.from_json(filename, format)
    return image._replace(options={**image.options, **(options or {})})


def follow(holder: BlockNode, reference: Reference) -> Described:
    """What an image's own claim leads to.

    Raises:
        BlockError: it leads where no claim may, or nowhere.
    """
    if reference.essential:
        return _follow_part(holder, reference)
    is_backing = reference.child == "backing"
    place = holder.place
    if not is_backing and names.protocol(reference.filename) is not None:
        # A data file's name is the image's own claim, and never more than a path (CVE-2024-4467).
        raise UntrustedReference(f"Could not open '{reference.filename}': {reference.child} must be a plain path")
    if is_backing and _is_relative(reference.filename) and not names.has_directory(place):
        raise UntrustedReference(
            f"'{holder.filename}' names a backing file by a relative path, '{reference.filename}', and has no directory"
        )
    # A data file's name is relative to where we run, as in QEMU, and a backing file's to the image that names it.
    name = names.resolve(reference.filename, place) if is_backing else reference.filename
    if reference.unique_id and not os.path.exists(name):
        found = parent.find(reference, place)
        if found is None:
            raise parent.missing(reference, place)
        name = found
    with blockdev.as_backing(reference.child):
        return describe(name, reference.format)


def complete(holder: BlockNode, reference: Reference, given: Described) -> Described:
    """A backing file by its options and, for what they leave open, by the image's own claim."""
    name = follow(holder, reference).name if reference.filename else ""
    with blockdev.as_backing(reference.child):
        return blockdev.complete(given, name, reference.format if name else None)


def untrusted(node: BlockNode, reference: Reference) -> UntrustedReference:
    """The error for an image that is not trusted and names another file."""
    what = "file for its data" if reference.essential else f"{reference.child} file"
    return UntrustedReference(
        f"'{node.filename}' is not trusted and names a {what}: '{reference.filename}'",
        hint="Open it as trusted only if you know where it comes from.",
    )


def _follow_part(holder: BlockNode, reference: Reference) -> Described:
    """Where a part of an image lies: beside it, whatever its name looks like, or at an absolute path of this host."""
    place, name = holder.place, reference.filename
    if os.path.isabs(name):
        if names.protocol(place) not in (None, "file"):
            raise UntrustedReference(f"'{place}' is no file of this host, and names one that is: '{name}'")
    elif not names.has_directory(place):
        kind = holder.format if holder.file is None else holder.file.format
        raise InvalidImage(
            f"Cannot use relative paths with {holder.format.upper()} descriptor file '{place}': "
            f"Cannot generate a base directory for {kind} nodes"
        )
    path = names.resolve(names.of_path(name), place)
    return Described(path, "file", {}, path)


def _is_relative(name: str) -> bool:
    return names.protocol(name) is None and not os.path.isabs(name)
