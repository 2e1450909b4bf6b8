"""Network filters and their bindings."""

from __future__ import annotations

from collections.abc import Iterator

from hostel.model.nwfilter.binding import read_binding
from hostel.model.nwfilter.filter import read_filter
from libvirt_data.case import Case, Suite, Tree, same


def filters(tree: Tree) -> Iterator[Case]:
    """Documents of filters; one that may fail must, where libvirt keeps nothing to compare with."""
    for call in tree.calls("nwfilterxml2xmltest", "DO_TEST"):
        name = call.words[0]
        read, written = (tree.path(f"nwfilterxml2xml{way}/{name}.xml") for way in ("in", "out"))
        must_fail = not written.exists()
        yield Case("nwfilterxml2xml", name, read, None if must_fail else written, must_fail)


def filter(case: Case) -> str:
    """A filter as it is written."""
    return read_filter(case.text()).format()


def binding(case: Case) -> str:
    """A binding as it is written."""
    return read_binding(case.text()).format()


SUITES = (
    Suite("nwfilterxml2xml", filters, filter),
    Suite(
        "nwfilterbindingxml2xml",
        same("nwfilterbindingxml2xml", "virnwfilterbindingxml2xmltest", "virnwfilterbindingxml2xmldata"),
        binding,
    ),
)
