"""Networks, changes of them, and their ports."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from hostel.drivers.network.dnsmasq import configuration, hosts_file
from hostel.drivers.network.iptables import commands
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


def configurations(tree: Tree) -> Iterator[Case]:
    """Networks and the files of dnsmasq for them, the one with the hosts as well."""
    for call in tree.calls("networkxml2conftest", "DO_TEST"):
        name = call.words[0]
        read, written = (tree.path(f"networkxml2confdata/{name}.{end}") for end in ("xml", "conf"))
        hosts = tree.path(f"networkxml2confdata/{name}.hostsfile")
        yield Case("networkxml2conf", name, read, written, extra={"hosts": hosts.read_text() if hosts.exists() else ""})


def dnsmasq(case: Case) -> str:
    """The configuration; what is wrong with the file of hosts is added to it."""
    network = read_network(case.text())
    hosts = hosts_file(network)
    wrong = "" if hosts == case.extra["hosts"] else f"hosts:\n{hosts}"
    return configuration(network, "/var/lib/libvirt/dnsmasq") + wrong


def same_settings(ours: str, theirs: str) -> bool:
    """Whether two configurations are the same but for their comments."""
    return without_comments(ours) == without_comments(theirs)


def without_comments(text: str) -> list[str]:
    """The lines that dnsmasq reads."""
    return [line for line in text.splitlines() if not line.startswith("#")]


def firewalls(tree: Tree) -> Iterator[Case]:
    """Networks and the rules that open the firewall for them."""
    for call in tree.calls("networkxml2firewalltest", "DO_TEST"):
        begin = f"networkxml2firewalldata/{call.words[0]}"
        yield Case("networkxml2firewall", call.words[0], tree.path(f"{begin}.xml"), tree.path(f"{begin}-linux.args"))


def firewall(case: Case) -> str:
    """The commands, one a line."""
    lines = (" ".join(map(shlex.quote, command)) for command in commands(read_network(case.text())))
    return "".join(f"{line}\n" for line in lines)


SUITES = (
    Suite("networkxml2xml", networks, network),
    Suite("networkxml2xmlupdate", updates, changed_network),
    Suite(
        "networkportxml2xml", same("networkportxml2xml", "virnetworkportxml2xmltest", "virnetworkportxml2xmldata"), port
    ),
    Suite("networkxml2conf", configurations, dnsmasq, same_settings),
    Suite("networkxml2firewall", firewalls, firewall),
)
