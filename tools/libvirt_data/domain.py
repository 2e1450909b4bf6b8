"""Domains: as every driver reads them, as the QEMU driver stores them, and whether it takes them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from hostel.model.domain.defaults import complete
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform
from hostel.model.domain.rules.start import check_start
from hostel.model.domain.validate import validate
from libvirt_data.case import Case, Suite, Tree
from libvirt_data.emulator import Wanted, host_before, platform
from libvirt_data.macros import Call

_MACROS = r"DO_TEST\w*"


def stored(case: Case) -> str:
    """A domain as it is written after it was read, completed and held against the rules."""
    is_live = case.extra["is_live"]
    domain = Domain.parse(case.text())
    if not is_live:
        forget_run(domain)
    where: Platform = case.extra["platform"]()
    complete(domain, where, is_new=case.extra.get("is_new", False), is_live=is_live)
    validate(domain, where)
    return domain.format()


def taken(case: Case) -> str:
    """A domain that can be started."""
    domain = Domain.parse(case.text())
    forget_run(domain)
    where: Platform = case.extra["platform"]()
    complete(domain, where, is_new=case.extra["is_new"])
    validate(domain, where)
    check_start(domain, where)
    return domain.format()


def generic(tree: Tree) -> Iterator[Case]:
    """Documents that concern no driver."""
    macros = ("DO_TEST_DIFFERENT", "DO_TEST_FAIL_ACTIVE", "DO_TEST_FAIL_INACTIVE", "DO_TEST")
    for call in tree.calls("genericxml2xmltest", *macros):
        name = call.words[0]
        must_fail = "FAIL" in call.macro
        read = tree.path(f"genericxml2xmlindata/{name}.xml")
        written = tree.path(f"genericxml2xmloutdata/{name}.xml") if call.macro == "DO_TEST_DIFFERENT" else read
        extra = {
            "platform": functools.partial(Platform, arch="x86_64"),
            "is_live": not call.macro.endswith("_INACTIVE"),
        }
        yield Case("genericxml2xml", name, read, None if must_fail else written, must_fail, extra)


def _wanted(tree: Tree, program: str, call: Call, *, is_basic: bool) -> Wanted:
    """What a call says of the emulator."""
    words, macro = call.words, call.macro
    flags = tuple(word for word in words[1:] if word.startswith("QEMU_CAPS_"))
    arch = version = ""
    if "PPC64" in macro:
        arch, version = "ppc64", "latest"
    elif "CAPS_ARCH_LATEST" in macro:
        arch, version = words[1], "latest"
    elif "CAPS_ARCH_VER" in macro:
        arch, version = words[1], words[2]
    elif "CAPS_LATEST" in macro:
        arch, version = "x86_64", "latest"
    elif "CAPS_VER" in macro:
        arch, version = "x86_64", words[1]
    gic = next((word for word in words[1:] if word.startswith("GIC_")), "")
    host = host_before(tree.source(program).text, call.position)
    return Wanted(arch, version, flags, gic, host, "MACOS" in macro, is_basic)


def _calls(tree: Tree, program: str) -> Iterator[tuple[Call, str]]:
    """A program's cases: the calls, and the names, that of the capabilities with them."""
    seen: set[str] = set()
    for call in tree.calls(program, _MACROS):
        if not call.words or not re.fullmatch(r"[\w+.-]+", call.words[0]) or call.words[0] in ("name", "_name"):
            continue
        wanted = _wanted(tree, program, call, is_basic=False)
        name = call.words[0] + (f".{wanted.arch}-{wanted.version}" if wanted.version else "")
        others = sum(other.partition("#")[0] == name for other in seen)
        name += f"#{others + 1}" if others else ""
        seen.add(name)
        yield call, name


def qemu(tree: Tree) -> Iterator[Case]:
    """Documents as the QEMU driver stores them, and as it shows them while they run."""
    for call, name in _calls(tree, "qemuxml2xmltest"):
        wanted = _wanted(tree, "qemuxml2xmltest", call, is_basic=False)
        file, suffix = call.words[0], f".{wanted.arch}-{wanted.version}" if wanted.version else ""
        for when in ("inactive", "active"):
            if f"WHEN_{when.upper()}" not in call.words and any(
                word.startswith("WHEN_") and word != "WHEN_BOTH" for word in call.words
            ):
                continue
            read = tree.path(f"qemuxml2argvdata/{file}.xml")
            written = tree.path(f"qemuxml2xmloutdata/{file}-{when}{suffix}.xml")
            if not written.exists():
                written = tree.path(f"qemuxml2xmloutdata/{file}{suffix}.xml")
            extra = {
                "platform": functools.partial(platform, tree, read.read_text(), wanted),
                "is_live": when == "active",
                "is_new": "VIR_DOMAIN_DEF_PARSE_ABI_UPDATE" in call.words,
            }
            yield Case("qemuxml2xml", f"{name} {when}", read, written, extra=extra)


def qemu_taken(tree: Tree) -> Iterator[Case]:
    """Documents that the QEMU driver takes, or refuses."""
    for call, name in _calls(tree, "qemuxml2argvtest"):
        words = " ".join((call.macro, *call.words[1:]))
        must_fail = any(word in words for word in ("PARSE_ERROR", "FAILURE"))
        read = tree.path(f"qemuxml2argvdata/{call.words[0]}.xml")
        wanted = _wanted(tree, "qemuxml2argvtest", call, is_basic=True)
        extra = {
            "platform": functools.partial(platform, tree, read.read_text(), wanted),
            "is_new": "VIR_DOMAIN_DEF_PARSE_ABI_UPDATE" in call.words,
        }
        yield Case("qemuxml2argv-taken", name, read, must_fail=must_fail, extra=extra)


SUITES = (
    Suite("genericxml2xml", generic, stored),
    Suite("qemuxml2xml", qemu, stored),
    Suite("qemuxml2argv-taken", qemu_taken, taken),
)
