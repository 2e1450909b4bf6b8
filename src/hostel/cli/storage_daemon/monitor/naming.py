"""What images are called that stand on others than their metadata says."""

from __future__ import annotations

from typing import Any

from hostel.block.filename import resolve
from hostel.block.node import BlockNode
from hostel.block.rewiring import unfiltered


def full_name(image: BlockNode) -> str:
    """The name of an image, with what it stands on where its own metadata does not say that."""
    from hostel.codec.qobject import compact_json

    tree = _tree(image)
    return f"json:{compact_json(tree)}" if "backing" in tree else image.filename


def _tree(image: BlockNode) -> dict[str, Any]:
    below = None if image.backing is None else unfiltered(image.backing)
    found: dict[str, Any] = {"driver": image.format, "file": {"driver": "file", "filename": image.place}}
    recorded = next((each.filename for each in image.driver.references() if each.child == "backing"), None)
    if below is None:
        return found if recorded is None else {**found, "backing": None}
    tree = _tree(below)
    if "backing" in tree or resolve(recorded or "", image.place) != below.filename:
        found["backing"] = tree
    return found
