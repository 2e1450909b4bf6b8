"""Command lines of QEMU for tests: what one has for some devices of a document."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from hostel.drivers.qemu import document
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command.context import Context
from hostel.drivers.qemu.command.machine import build
from hostel.drivers.qemu.command.support import SAID
from support.domain import QEMU

HEAD = "<domain type='qemu'><name>g</name><memory unit='MiB'>64</memory>{head}<os>{type}</os>"
PC = "<type>hvm</type>"
Q35 = "<type machine='q35'>hvm</type>"
CONTEXT = Context("/usr/bin/qemu", Path("/run/monitor"), {"default": "virbr0"}.get)


def text(devices: str, *, type: str = PC, head: str = "") -> str:
    """A document with some devices."""
    return HEAD.format(head=head, type=type) + f"<devices>{devices}</devices></domain>"


def said(devices: str, *, type: str = PC, head: str = "", context: Context = CONTEXT) -> list[str]:
    """The command line, with all that only a command line has."""
    domain = document.parse(text(devices, type=type, head=head), QEMU)
    assign_aliases(domain)
    return build(domain, context, SAID)


def specs(argv: list[str], option: str) -> list[dict[str, Any]]:
    """The properties of every option of a name that is JSON."""
    pairs = itertools.pairwise(argv)
    return [json.loads(value) for name, value in pairs if name == option and value.startswith("{")]


def spec(argv: list[str], option: str, **known: object) -> dict[str, Any]:
    """The properties of the one option that has these."""
    (found,) = (item for item in specs(argv, option) if known.items() <= item.items())
    return found
