"""Network filters and their bindings."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator

from hostel.drivers.nwfilter.commands import commands
from hostel.drivers.nwfilter.instance import instances
from hostel.model.nwfilter.binding import read_binding
from hostel.model.nwfilter.filter import Filter, read_filter
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


# The variables that libvirt's test has.
_VARIABLES = {
    "IPSETNAME": ["tck_test"],
    "A": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "3.3.3.3"],
    "B": ["80", "90", "80", "80"],
    "C": ["1080", "1090", "1100", "1110"],
}


def firewalls(tree: Tree) -> Iterator[Case]:
    """Filters and the rules that they are to the host, without those that every interface has."""
    program = "nwfilterxml2firewalltest"
    body = tree.path(f"{program}.c").read_text().partition("commonRules[] = {")[2].partition("};")[0]
    blocks = re.findall(r'((?:"(?:[^"\\]|\\.)*"\s*)+),', body)
    common = [ast.literal_eval(f"({block})").replace("\\\n", "") for block in blocks]
    for call in tree.calls(program, "DO_TEST"):
        begin = f"nwfilterxml2firewalldata/{call.words[0]}"
        read, written = (tree.path(f"{begin}{end}") for end in (".xml", "-linux.args"))
        yield Case("nwfilterxml2firewall", call.words[0], read, written, extra={"common": common})


def firewall(case: Case) -> str:
    """The commands for an interface, one a line."""

    def find(name: str) -> Filter:
        return read_filter(case.input.with_name(f"{name}.xml").read_text())

    rules = instances(read_filter(case.text()), _VARIABLES, find)
    lines = (" ".join(map(_quoted, command.arguments)) for command in commands("vnet0", rules))
    text = "".join(f"{line}\n" for line in lines)
    for block in case.extra["common"]:
        text = text.replace(block, "", 1)
    return text


def _quoted(text: str) -> str:
    """A word as libvirt writes it for a shell."""
    return shlex.quote(text).replace("'\"'\"'", "'\\''")


SUITES = (
    Suite("nwfilterxml2xml", filters, filter),
    Suite(
        "nwfilterbindingxml2xml",
        same("nwfilterbindingxml2xml", "virnwfilterbindingxml2xmltest", "virnwfilterbindingxml2xmldata"),
        binding,
    ),
    Suite("nwfilterxml2firewall", firewalls, firewall),
)
