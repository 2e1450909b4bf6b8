"""Networks and their ports."""

from __future__ import annotations

from collections.abc import Iterator

from hostel.model.network import Network
from libvirt_data.case import Case, Suite, Tree


def networks(tree: Tree) -> Iterator[Case]:
    """Documents of networks."""
    for call in tree.calls("networkxml2xmltest", "DO_TEST_PARSE_ERROR", "DO_TEST_FLAGS", "DO_TEST"):
        name = call.words[0]
        must_fail = call.macro == "DO_TEST_PARSE_ERROR"
        written = tree.path(f"networkxml2xmlout/{name}.xml")
        flags = {"flags": call.words[1]} if len(call.words) > 1 else {}
        read = tree.path(f"networkxml2xmlin/{name}.xml")
        yield Case("networkxml2xml", name, read, None if must_fail else written, must_fail, flags)


def network(case: Case) -> str:
    """A network as it is written."""
    return Network.parse(case.text()).format()


SUITES = (Suite("networkxml2xml", networks, network),)
