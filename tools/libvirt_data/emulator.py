"""The emulators that libvirt's tests pretend to have, as platforms that documents are completed for."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lxml import etree

from hostel.model.domain.platform import ARM, X86, HostAudio, HostDevice, Platform, Sev
from libvirt_data.case import Tree

_NAMES = {"i686": "i386", "armv7l": "arm", "armv6l": "arm", "ppc64le": "ppc64"}
# The machine types of emulators whose capabilities a test only lists, first the one for documents that name none.
_MACHINES = {
    "i686": ("pc",), "x86_64": ("pc", "q35"), "aarch64": ("virt", "virt-2.6", "versatilepb"),
    "armv7l": ("vexpress-a9", "virt"), "armv6l": ("vexpress-a9", "virt"), "ppc64": ("pseries",),
    "ppc64le": ("pseries",), "ppc": ("ppce500",), "riscv32": ("virt",), "riscv64": ("virt",),
    "s390x": ("s390-ccw-virtio",), "sparc": ("SS-5",),
}  # fmt: skip
# What libvirt takes every emulator of an architecture to have.
_BASIC = {
    "i686": ("no-acpi", "no-hpet"), "x86_64": ("no-acpi", "no-hpet"),
    "aarch64": ("no-acpi", "aarch64-off", "machine.virt.gic-version"),
    "s390x": ("aes-key-wrap", "dea-key-wrap", "loadparm"),
}  # fmt: skip
_GIC = {"GIC_V2": (2,), "GIC_V3": (3,), "GIC_BOTH": (2, 3)}
_FLAG = re.compile(r'"([^"]+)",\s*/\* (\w+) \*/')
_MODELS = re.compile(r"const char \*(\w+)Models\[\] = \{([^}]*)\}")
_HOST_DEVICE = re.compile(r'MAKE_PCI_DEVICE\("([^"]+)", \w+, \w+, (\d+)')
_EXPRESS = 0x10  # PCI Express, section 7.5.3.1: the capability's number


class Host(NamedTuple):
    """What a test program says of the host before a case.

    Attributes:
        arch: its architecture.
        tpm_versions: the versions of TPMs that can be emulated there.
        audio: how guests are heard there.
    """

    arch: str = "x86_64"
    tpm_versions: frozenset[str] = frozenset({"1.2", "2.0"})
    audio: HostAudio = HostAudio()


class Wanted(NamedTuple):
    """What a test says of its emulator.

    Attributes:
        arch: the architecture of its capabilities file; empty where there is only a list.
        version: that file's version, or ``latest``.
        flags: the capabilities that are listed, as C names.
        gic: the versions of the interrupt controller, as C names them.
        host: the host.
        is_macos: whether that is one of Apple's.
        is_basic: whether what every emulator has goes without saying.
    """

    arch: str = ""
    version: str = ""
    flags: tuple[str, ...] = ()
    gic: str = ""
    host: Host = Host()
    is_macos: bool = False
    is_basic: bool = False


_SAID = re.compile(
    r"qemuTestSetHostArch\(&driver, VIR_ARCH_(?P<arch>\w+)\)"
    r'|setenv\((?P<name>"\w+"|\w+), (?P<value>"\w+"|\w+), \w+\)|unsetenv\((?P<no>"\w+"|\w+)\)'
    r"|config->(?P<setting>\w+AllowHostAudio) = (?P<is_on>\w+)"
)


def host_before(text: str, position: int) -> Host:
    """What a test program has said of the host up to a place."""
    arch, said = "x86_64", dict[str, str]()
    for found in _SAID.finditer(text, 0, position):
        if found["arch"]:
            arch = "x86_64" if found["arch"] == "NONE" else found["arch"].lower()
        elif found["name"]:
            said[found["name"].strip('"')] = found["value"].strip('"')
        elif found["no"]:
            said.pop(found["no"].strip('"'), None)
        else:
            said[found["setting"]] = found["is_on"]
    tpm = said.get("TEST_TPM_ENV_VAR")
    versions = frozenset({tpm.removeprefix("TPM_VER_").replace("_", ".")} if tpm else {"1.2", "2.0"})
    audio = HostAudio(
        said.get("QEMU_AUDIO_DRV"),
        said.get("SDL_AUDIODRIVER"),
        said.get("vncAllowHostAudio") == "true",
        said.get("nogfxAllowHostAudio") == "true",
    )
    return Host(arch, versions, audio)


def platform(tree: Tree, document: str, wanted: Wanted) -> Platform:
    """The platform that a document is completed for: its architecture and its way of running decide."""
    arch, kind = _machine_of(document)
    arch = arch or wanted.arch or wanted.host.arch
    flags = {_flags(tree).get(flag, flag) for flag in wanted.flags}
    machines = _MACHINES.get(arch, ("",))
    common = Platform(
        is_qemu=True,
        arch=arch,
        emulator=f"/usr/bin/qemu-system-{_NAMES.get(arch, arch)}",
        machine=machines[0],
        host_devices=_host_devices(tree),
        random_bytes=lambda length: bytes(range(length)),
        host_arch=wanted.host.arch,
        tpm_versions=wanted.host.tpm_versions,
        audio=wanted.host.audio,
        host_nodes=frozenset(range(8)),
        page_sizes=frozenset({4, 2048, 1048576}),
        types=frozenset({"qemu", "hvf" if wanted.is_macos else "kvm"}),
        shares_memory=False,
        state_directory="/tmp/lib",
        nvram_directory="/tmp/lib/nvram",
        channel_directory="/tmp/channel",
    )
    if not wanted.version:
        basic = _BASIC.get(arch, ()) if wanted.is_basic else ()
        models = _models(tree, arch) if wanted.is_basic else None
        return common._replace(
            features=frozenset({*flags, *basic}), gic_versions=_GIC.get(wanted.gic, ()), models=models
        )
    real = _real(_capabilities(tree, wanted.arch, wanted.version), common, kind, frozenset(flags), wanted.version)
    return real._replace(gic_versions=_GIC.get(wanted.gic, real.gic_versions))


def _real(capabilities: etree._Element, common: Platform, kind: str, flags: frozenset[str], version: str) -> Platform:
    """What a capabilities file says; in ``latest`` tests, machine types keep the names that stand for others."""
    found = capabilities.iterfind(f"cpu[@type='{kind}']")
    names = {cpu.get("typename"): cpu.get("name", "") for cpu in found}
    aliases: dict[str, str] = {}
    cpus: dict[str, str | None] = {}
    default = common.machine
    for machine in capabilities.iterfind(f"machine[@type='{kind}']"):
        name, alias = machine.get("name") or "", machine.get("alias")
        if alias is not None and version == "latest":
            name = alias
        elif alias is not None:
            aliases[alias] = name
        cpu = machine.get("defaultCPU")
        cpus[name] = names.get(cpu, cpu) if cpu is not None else None
        default = name if machine.get("default") == "yes" else default
    sharing = capabilities.find(f"machine[@type='{kind}'][@defaultRAMid]") is not None
    way = "kernel" if kind == "kvm" else "emulated"
    gic = [int(item.get("version") or 0) for item in capabilities.iterfind("gic") if item.get(way) == "yes"]
    return common._replace(
        machine=default,
        aliases=aliases,
        cpus=cpus,
        models=frozenset(names.values()),
        features=flags | {flag.get("name") or "" for flag in capabilities.iterfind("flag")},
        shares_memory=sharing,
        gic_versions=tuple(gic),
        sev=_sev(capabilities.find("sev")),
        has_host_model=capabilities.find(f"hostCPU[@type='{kind}']") is not None,
    )


def _sev(found: etree._Element | None) -> Sev | None:
    """What a capabilities file says of SEV."""
    if found is None:
        return None
    told = {item.tag: item.text or "" for item in found}
    bits = int(told["cbitpos"]), int(told["reducedPhysBits"])
    return Sev(told["pdh"], told["certChain"], told.get("cpu0Id"), *bits, 0, 0)


def _machine_of(document: str) -> tuple[str | None, str]:
    """A document's architecture, and how its machine runs, as capabilities files name that."""
    root = etree.fromstring(document.encode())
    kind = root.find("os/type")
    return kind.get("arch") if kind is not None else None, "kvm" if root.get("type") == "kvm" else "tcg"


@functools.cache
def _models(tree: Tree, arch: str) -> frozenset[str] | None:
    """The processor models of emulators whose capabilities a test only lists; None where it says nothing."""
    lists = dict(_MODELS.findall(tree.source("qemuxml2argvtest").text))
    family = "x86" if arch in X86 else "arm" if arch in ARM else arch
    if family not in lists:
        return None
    return frozenset(re.findall(r'"([^"]+)"', lists[family] + lists.get(f"{family}Legacy", "")))


@functools.cache
def _flags(tree: Tree) -> Mapping[str, str]:
    """The names of capabilities by what C calls them."""
    text = (tree.root.parent / "src" / "qemu" / "qemu_capabilities.c").read_text()
    names = text[text.index("VIR_ENUM_IMPL(virQEMUCaps,") :]
    return {found[2]: found[1] for found in _FLAG.finditer(names[: names.index(");")])}


@functools.cache
def _capabilities(tree: Tree, arch: str, version: str) -> etree._Element:
    folder = tree.path("qemucapabilitiesdata")
    path = folder / f"caps_{version}.{arch}.xml"
    if version == "latest":
        path = max(folder.glob(f"caps_*.{arch}.xml"), key=_version)
    return etree.parse(path).getroot()


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)[:3]]


@functools.cache
def _host_devices(tree: Tree) -> Mapping[str, HostDevice]:
    """The PCI devices of the host that the tests pretend to be on."""
    found = _HOST_DEVICE.findall(tree.path("virpcimock.c").read_text())
    return {place: HostDevice(int(group), _is_express(tree, place)) for place, group in found}


def _is_express(tree: Tree, place: str) -> bool:
    """Whether a device's configuration space lists the capability of PCI Express."""
    path = tree.path(f"virpcitestdata/{place.replace(':', '-')}.config")
    space = path.read_bytes() if path.exists() else bytes(64)
    position = space[0x34] if space[6] & 0x10 else 0
    while position and space[position] != _EXPRESS:
        position = space[position + 1]
    return bool(position)
