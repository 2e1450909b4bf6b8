"""Storage: pools, volumes."""

from __future__ import annotations

from collections.abc import Iterator

from hostel.model.storage import Pool
from libvirt_data.case import Case, Suite, Tree


def pools(tree: Tree) -> Iterator[Case]:
    """Documents of pools."""
    for call in tree.calls("storagepoolxml2xmltest", "DO_TEST"):
        name = call.words[0]
        read, written = (tree.path(f"storagepoolxml2xml{way}/{name}.xml") for way in ("in", "out"))
        yield Case("storagepoolxml2xml", name, read, written)


def pool(case: Case) -> str:
    """A pool as it is written."""
    return Pool.parse(case.text()).format()


SUITES = (Suite("storagepoolxml2xml", pools, pool),)
