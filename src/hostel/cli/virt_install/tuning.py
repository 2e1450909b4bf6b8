"""The options of how a machine is run: tuning, labels, firmware tables, containers and arguments for QEMU itself."""

from __future__ import annotations

import shlex
from typing import Final

from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import NoneMeans, Option, plain
from hostel.cli.virt_install.order import SMBIOS
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import (
    CLEAR,
    FLAG,
    NUMBER,
    TEXT,
    YES_NO,
    Given,
    Hook,
    Sub,
    SubOptions,
    at,
    within,
)
from hostel.errors import UsageError

_PAGE: Final = "memoryBacking/hugepages/page[{}]"
_DEVICE: Final = "blkiotune/device[{}]"
_OLD_SMBIOS: Final = ("bios", "system", "baseBoard")  # blocks whose values are also named with an underscore

IOTHREADS: Final = SubOptions(
    "--iothreads",
    (
        *within("", "iothreads", kind=NUMBER),
        at("iothreadids.iothread[0-9]*.id", NUMBER),
        at("iothreadids.iothread[0-9]*.thread_pool_min", NUMBER),
        at("iothreadids.iothread[0-9]*.thread_pool_max", NUMBER),
        at("defaultiothread.thread_pool_min", NUMBER),
        at("defaultiothread.thread_pool_max", NUMBER),
    ),
    ("iothreads",),
    owner="iothreads",
)
SECLABEL: Final = SubOptions(
    "--seclabel",
    (
        at("type"),
        at("model"),
        at("relabel", YES_NO),
        Sub("label", "label", comma=True),
        Sub("baselabel", "baselabel", comma=True),
    ),
    owner="seclabel",
)
KEYWRAP: Final = SubOptions(
    "--keywrap",
    tuple(at(f"cipher[0-9]*.{name}", comma=True, inside="keywrap") for name in ("name", "state")),
    owner="keywrap",
)
CPUTUNE: Final = SubOptions(
    "--cputune",
    (
        *within("cputune", "shares", "period", "quota", "global_period", "global_quota", kind=NUMBER),
        *within("cputune", "emulator_period", "emulator_quota", "iothread_period", "iothread_quota", kind=NUMBER),
        at("vcpupin[0-9]*.vcpu", NUMBER, inside="cputune"),
        at("vcpupin[0-9]*.cpuset", comma=True, inside="cputune"),
        at("emulatorpin.cpuset", comma=True, inside="cputune"),
        at("iothreadpin[0-9]*.iothread", NUMBER, inside="cputune"),
        at("iothreadpin[0-9]*.cpuset", comma=True, inside="cputune"),
        at("emulatorsched.scheduler", inside="cputune"),
        at("emulatorsched.priority", NUMBER, inside="cputune"),
        at("vcpusched[0-9]*.vcpus", comma=True, inside="cputune"),
        at("vcpusched[0-9]*.scheduler", inside="cputune"),
        at("vcpusched[0-9]*.priority", NUMBER, inside="cputune"),
        at("iothreadsched[0-9]*.iothreads", comma=True, inside="cputune"),
        at("iothreadsched[0-9]*.scheduler", inside="cputune"),
        at("iothreadsched[0-9]*.priority", NUMBER, inside="cputune"),
        at("cachetune[0-9]*.vcpus", comma=True, inside="cputune"),
        at("cachetune[0-9]*.cache[0-9]*.id", NUMBER, inside="cputune"),
        at("cachetune[0-9]*.cache[0-9]*.level", NUMBER, inside="cputune"),
        at("cachetune[0-9]*.cache[0-9]*.type", inside="cputune"),
        at("cachetune[0-9]*.cache[0-9]*.size", NUMBER, inside="cputune"),
        at("cachetune[0-9]*.cache[0-9]*.unit", inside="cputune"),
        at("cachetune[0-9]*.monitor[0-9]*.level", NUMBER, inside="cputune"),
        at("cachetune[0-9]*.monitor[0-9]*.vcpus", comma=True, inside="cputune"),
        at("memorytune[0-9]*.vcpus", comma=True, inside="cputune"),
        at("memorytune[0-9]*.node[0-9]*.id", NUMBER, inside="cputune"),
        at("memorytune[0-9]*.node[0-9]*.bandwidth", NUMBER, inside="cputune"),
    ),
    ("model",),
    owner="cputune",
)
NUMATUNE: Final = SubOptions(
    "--numatune",
    (
        at("memory.nodeset", TEXT, "nodeset", comma=True, inside="numatune"),
        at("memory.mode", TEXT, "mode", inside="numatune"),
        at("memory.placement", inside="numatune"),
        at("memnode[0-9]*.cellid", NUMBER, comma=True, inside="numatune"),
        at("memnode[0-9]*.mode", inside="numatune"),
        at("memnode[0-9]*.nodeset", comma=True, inside="numatune"),
    ),
    ("nodeset",),
    owner="numatune",
)
MEMTUNE: Final = SubOptions(
    "--memtune",
    within("memtune", "hard_limit", "soft_limit", "swap_hard_limit", "min_guarantee", kind=NUMBER),
    ("soft_limit",),
    owner="memtune",
)
BLKIOTUNE: Final = SubOptions(
    "--blkiotune",
    (
        *within("blkiotune", "weight", kind=NUMBER),
        Sub("device[0-9]*.path", f"{_DEVICE}/path", aliases=("device_path",)),
        Sub("device[0-9]*.weight", f"{_DEVICE}/weight", aliases=("device_weight",)),
        *(
            Sub(f"device[0-9]*.{name}", f"{_DEVICE}/{name}", NUMBER, aliases=(name,))
            for name in ("read_bytes_sec", "write_bytes_sec", "read_iops_sec", "write_iops_sec")
        ),
    ),
    ("weight",),
    owner="blkiotune",
)
MEMORYBACKING: Final = SubOptions(
    "--memorybacking",
    (
        *within("memoryBacking", "hugepages", kind=FLAG),
        Sub("hugepages.page[0-9]*.size", f"{_PAGE}/@size", aliases=("size",)),
        Sub("hugepages.page[0-9]*.unit", f"{_PAGE}/@unit", aliases=("unit",)),
        Sub("hugepages.page[0-9]*.nodeset", f"{_PAGE}/@nodeset", comma=True, aliases=("nodeset",)),
        *within("memoryBacking", "nosharepages", "locked", kind=FLAG),
        at("access.mode", TEXT, "access_mode", inside="memoryBacking"),
        at("source.type", TEXT, "source_type", inside="memoryBacking"),
        *within("memoryBacking", "discard", kind=FLAG),
        at("allocation.mode", inside="memoryBacking"),
        at("allocation.threads", NUMBER, inside="memoryBacking"),
    ),
    owner="memoryBacking",
)
RESOURCE: Final = SubOptions(
    "--resource",
    (*within("resource", "partition"), at("fibrechannel.appid", comma=True, inside="resource")),
    ("partition",),
    owner="resource",
)
IDMAP: Final = SubOptions(
    "--idmap",
    tuple(
        at(f"{who}.{name}", NUMBER, f"{who}_{name}", inside="idmap")
        for who in ("uid", "gid")
        for name in ("start", "target", "count")
    ),
    owner="idmap",
)
SYSINFO: Final = SubOptions(
    "--sysinfo",
    (
        at("type", comma=True),
        *(
            Sub(
                f"{block}.{name}",
                f"{block}/entry[@name='{name}']",
                aliases=(f"{block}_{name}",) if block in _OLD_SMBIOS else (),
            )
            for block, names in SMBIOS.items()
            for name in names
        ),
        Sub("oemStrings.entry[0-9]*", "oemStrings/entry[{}]", comma=True),
        Sub("entry[0-9]*", "entry[{}]", comma=True),
        at("entry[0-9]*.name", comma=True),
        at("entry[0-9]*.file", comma=True),
    ),
    ("type",),
    owner="sysinfo",
)
LAUNCH_SECURITY: Final = SubOptions(
    "--launchSecurity",
    (
        at("type", inside="launchSecurity"),
        *within("launchSecurity", "cbitpos", "reducedPhysBits", kind=NUMBER),
        *within("launchSecurity", "policy", "session", "dhCert"),
        at("kernelHashes", YES_NO, inside="launchSecurity"),
    ),
    ("type",),
    owner="launchSecurity",
)
QEMU_COMMANDLINE: Final = SubOptions(
    "--qemu-commandline", (Sub("args", comma=True), Sub("env", comma=True)), owner="qemu:commandline"
)


def _fill_sysinfo(guest: Guest, part: Part, given: Given) -> None:
    given.setdefault("type", "smbios")
    hooks: dict[str, Hook] = {"type": _sysinfo_type, "system.uuid": _system_uuid}
    SYSINFO.apply(given, part, hooks, guest)


def _same_sysinfo(guest: Guest, given: Given) -> list[Part] | None:
    """Tables of one type are one element, however often the option is given; two types are no element at all."""
    given.setdefault("type", "smbios")
    if given["type"] in ("host", "emulate"):
        _fill_sysinfo(guest, Part("sysinfo"), given)
        return []
    for part in guest.devices["sysinfo"]:
        if part.get("@type") == given["type"]:
            _fill_sysinfo(guest, part, given)
            return []
    return None


def _sysinfo_type(guest: Guest, part: Part, value: str | None) -> None:
    if value in ("host", "emulate"):
        guest.domain.put("os/smbios/@mode", value)
        return
    if value == "smbios":
        guest.domain.put("os/smbios/@mode", "sysinfo")
    part.put("@type", value)


def _system_uuid(guest: Guest, part: Part, value: str | None) -> None:
    """The machine's own UUID has to be the same."""
    part.put("system/entry[@name='uuid']", value)
    guest.domain.put("uuid", value)


def _fill_commandline(guest: Guest, part: Part, given: Given) -> None:
    hooks: dict[str, Hook] = {"args": _arguments, "env": _environment}
    QEMU_COMMANDLINE.apply(given, part, hooks, guest)


def _arguments(guest: Guest, part: Part, value: str | None) -> None:
    try:
        words = shlex.split(value or "")
    except ValueError as error:
        raise UsageError(f"'{value}': {error}") from None
    index = _free(part, "qemu:arg")
    for word in words:
        part.put(f"qemu:commandline/qemu:arg[{index}]/@value", word)
        index += 1


def _environment(guest: Guest, part: Part, value: str | None) -> None:
    name, equals, content = (value or "").partition("=")
    if not equals:
        raise UsageError(f"env={value}: write env=NAME=VALUE")
    index = _free(part, "qemu:env")
    part.put(f"qemu:commandline/qemu:env[{index}]/@name", name)
    part.put(f"qemu:commandline/qemu:env[{index}]/@value", content)


def _free(part: Part, element: str) -> int:
    index = 0
    while part.has(f"qemu:commandline/{element}[{index}]"):
        index += 1
    return index


class _Commandline(Option):
    """What is typed is QEMU's, commas and all, where it does not begin with one of ours."""

    def given(self, text: str) -> Given:
        name, equals, value = text.partition("=")
        if equals and name in ("env", "args", CLEAR):
            return {name: value}
        return {"args": text}


OPTIONS: Final = (
    Option(IOTHREADS, plain(IOTHREADS)),
    Option(SECLABEL, plain(SECLABEL)),
    Option(KEYWRAP, plain(KEYWRAP)),
    Option(CPUTUNE, plain(CPUTUNE), NoneMeans.VALUE),
    Option(NUMATUNE, plain(NUMATUNE)),
    Option(MEMTUNE, plain(MEMTUNE)),
    Option(BLKIOTUNE, plain(BLKIOTUNE)),
    Option(MEMORYBACKING, plain(MEMORYBACKING)),
    Option(RESOURCE, plain(RESOURCE)),
    Option(IDMAP, plain(IDMAP)),
    Option(SYSINFO, _fill_sysinfo, several=_same_sysinfo),
    Option(LAUNCH_SECURITY, plain(LAUNCH_SECURITY)),
    _Commandline(QEMU_COMMANDLINE, _fill_commandline),
)
