"""Networks, changes of them, and their ports."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hostel.model.network_defaults import complete_inactive, read_network
from hostel.model.network_port import read_network_port
from hostel.model.network_update import Command, Section, update
from libvirt_data.case import Case, Suite, Tree, same


def networks(tree: Tree) -> Iterator[Case]:
    """Documents of networks."""
    for call in tree.calls("networkxml2xmltest", "DO_TEST_PARSE_ERROR", "DO_TEST_FLAGS", "DO_TEST"):
        name = call.words[0]
        must_fail = call.macro == "DO_TEST_PARSE_ERROR"
        written = tree.path(f"networkxml2xmlout/{name}.xml")
        read = tree.path(f"networkxml2xmlin/{name}.xml")
        extra = {"is_inactive": "VIR_NETWORK_XML_INACTIVE" in call.words}
        yield Case("networkxml2xml", name, read, None if must_fail else written, must_fail, extra)


def network(case: Case) -> str:
    """A network as it is written."""
    network = read_network(case.text())
    if case.extra["is_inactive"]:
        complete_inactive(network)
    return network.format()


def updates(tree: Tree) -> Iterator[Case]:
    """Networks, each with a change of one section; which section it is, assignments between the calls say."""
    text = tree.source("networkxml2xmlupdatetest").text
    sections = [(each.start(), each[1]) for each in re.finditer(r"section = VIR_NETWORK_SECTION_(\w+);", text)]
    macros = ("DO_TEST_INDEX_FAIL", "DO_TEST_INDEX", "DO_TEST_FAIL", "DO_TEST")
    for number, call in enumerate(tree.calls("networkxml2xmlupdatetest", *macros), 1):
        must_fail = call.macro.endswith("FAIL")
        name, change, network, *rest = call.words
        written = None if must_fail else tree.path(f"networkxml2xmlupdateout/{rest.pop(0)}.xml")
        extra = {
            "update": tree.path(f"networkxml2xmlupdatein/{change}.xml"),
            "command": rest[0].removeprefix("VIR_NETWORK_UPDATE_COMMAND_"),
            "section": [section for start, section in sections if start < call.position][-1],
        }
        read = tree.path(f"networkxml2xmlin/{network}.xml")
        yield Case("networkxml2xmlupdate", f"{number}-{name}", read, written, must_fail, extra)


def changed_network(case: Case) -> str:
    """A network after a change; libvirt's test hands on the index as flags, so that the first address is meant."""
    network = read_network(case.text())
    extra = case.extra
    update(network, Command[extra["command"]], Section[extra["section"]], 0, extra["update"].read_text())
    return network.format()


def port(case: Case) -> str:
    """A port as it is written."""
    return read_network_port(case.text()).format()


SUITES = (
    Suite("networkxml2xml", networks, network),
    Suite("networkxml2xmlupdate", updates, changed_network),
    Suite(
        "networkportxml2xml", same("networkportxml2xml", "virnetworkportxml2xmltest", "virnetworkportxml2xmldata"), port
    ),
)
