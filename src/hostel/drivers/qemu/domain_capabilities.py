"""What an emulator can do for one machine of this driver: the document of domain capabilities.

It is made of QEMU's own answers, and says no more than this driver starts: what it acts on is in
:mod:`hostel.drivers.qemu.command.support`.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from hostel.codec.xml import Element
from hostel.drivers.host.driver import LinuxHostDriver
from hostel.drivers.qemu import confidential, probe
from hostel.drivers.qemu import features as qemu_features
from hostel.drivers.qemu.command.display import VIDEO
from hostel.drivers.qemu.command.support import FIELDS
from hostel.drivers.qemu.cpu.decode import host_model
from hostel.drivers.qemu.cpu.known import Known, known
from hostel.drivers.qemu.emulator import Chosen
from hostel.drivers.qemu.firmware.descriptor import Firmware
from hostel.model.domain import domain, features, memory, os
from hostel.model.domain.cpu import CpuFeature
from hostel.model.domain.devices import filesystem, hostdev, platform
from hostel.model.domain.devices.graphics import GraphicsType
from hostel.model.domain.platform import X86, Board, Sev, x86_board
from hostel.model.domain_capabilities import (
    ChannelSupport,
    Choices,
    CpuMode,
    CpuModes,
    DeviceSupport,
    DiskSupport,
    DomainCapabilities,
    FeatureSupport,
    FilesystemSupport,
    GicSupport,
    GraphicsSupport,
    HostdevSupport,
    HypervSupport,
    KnownModel,
    LoaderSupport,
    MemoryBackingSupport,
    OsSupport,
    RedirdevSupport,
    RngSupport,
    SevSupport,
    SgxSupport,
    TpmSupport,
    VideoSupport,
)

_HYPERV: Final = (
    "relaxed", "vapic", "spinlocks", "vpindex", "runtime", "synic", "stimer", "reset", "vendor_id", "frequencies",
    "reenlightenment", "tlbflush", "ipi", "evmcs", "avic",
)  # fmt: skip
# In the order of libvirt's enumerations, which is also that of the document.
_VIDEO_ORDER: Final = ("vga", "cirrus", "vmvga", "qxl", "virtio", "none", "bochs", "ramfb")
_USB_CONTROLLERS: Final = frozenset(
    {"piix3-usb-uhci", "piix4-usb-uhci", "usb-ehci", "ich9-usb-ehci1", "vt82c686b-usb-uhci", "pci-ohci",
     "nec-usb-xhci", "qemu-xhci"}
)  # fmt: skip
_TRANSITIONAL: Final = ("virtio", "virtio-transitional", "virtio-non-transitional")
_USUAL_LOADERS: Final = [
    "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE.secboot.fd", "/usr/share/AAVMF/AAVMF_CODE.fd",
    "/usr/share/AAVMF/AAVMF32_CODE.fd",
]  # fmt: skip
# In libvirt's order.
_SCREENS: Final = (
    GraphicsType.SDL, GraphicsType.VNC, GraphicsType.SPICE, GraphicsType.EGL_HEADLESS, GraphicsType.DBUS,
)  # fmt: skip
_VFIO: Final = Path("/dev/vfio/vfio")


def acts_on(cls: type[Element], field: str) -> bool:
    """Whether this driver starts a machine that has this in its document."""
    return field in FIELDS.get(cls, ())


def domain_capabilities(chosen: Chosen, cache: Path, firmwares: Sequence[Firmware]) -> DomainCapabilities:
    """The document for an emulator that was chosen; what was asked of QEMU is remembered in ``cache``."""
    has = qemu_features.features(chosen.path, cache)
    version = probe.known_version(chosen.path, cache)
    knows = known(chosen.path, cache, kvm=chosen.is_kvm)
    most = min(chosen.max_cpus, LinuxHostDriver().connect_get_max_vcpus("kvm")) if chosen.is_kvm else chosen.max_cpus
    return DomainCapabilities(
        path=chosen.path,
        domain=chosen.type,
        machine=chosen.machine,
        arch=chosen.arch,
        max_vcpus=most,
        iothreads="iothread" in has,
        os=_os(chosen, firmwares),
        cpu=_cpu(chosen, knows),
        memory_backing=_memory_backing(version),
        devices=_devices(chosen, has, cache),
        features=_features(has, knows, confidential.sev(chosen.path, cache)),
    )


def _choices(name: str, values: Iterable[str]) -> Choices:
    return Choices(name=name, values=list(values))


def _os(chosen: Chosen, firmwares: Sequence[Firmware]) -> OsSupport:
    fitting = [item for item in firmwares if item.fits(chosen.arch, chosen.machine)]
    names = {"bios": "bios", "uefi": "efi"} if acts_on(os.Os, "firmware") else {}
    automatic = [name for kind, name in names.items() if any(kind in item.interfaces for item in fitting)]
    loader = LoaderSupport(supported=False)
    if acts_on(os.Os, "loader"):
        paths = [item.executable.path for item in fitting if item.device != "kernel"] or _USUAL_LOADERS
        files = dict.fromkeys(path for path in paths if Path(path).exists())
        secure = any("requires-smm" in item.features for item in fitting)
        loader = LoaderSupport(
            supported=True,
            files=list(files),
            choices=[
                _choices("type", ("rom", "pflash")),
                _choices("readonly", ("yes", "no")),
                _choices("secure", ("yes", "no") if secure else ("no",)),
            ],
        )
    return OsSupport(supported=True, choices=[_choices("firmware", automatic)], loader=loader)


def _cpu(chosen: Chosen, knows: Known) -> CpuModes:
    switch = ["on", "off"]
    passthrough = CpuMode(name="host-passthrough", supported=chosen.is_kvm)
    if chosen.is_kvm:
        passthrough.choices = [_choices("hostPassthroughMigratable", switch)]
    maximum = CpuMode(name="maximum", supported=True, choices=[_choices("maximumMigratable", switch)])
    models = [
        KnownModel(
            name=model.name,
            usable={True: "yes", False: "no", None: "unknown"}[model.usable],
            deprecated=True if model.deprecated else None,
            vendor=model.vendor or "unknown",
        )
        for model in knows.models.values()
    ]
    custom = CpuMode(name="custom", supported=bool(models), models=models)
    return CpuModes(modes=[passthrough, maximum, _host_model(chosen, knows), custom])


def _host_model(chosen: Chosen, knows: Known) -> CpuMode:
    """What stands in for the host's processor."""
    named = host_model(knows) if chosen.arch in X86 else None
    if named is None:
        return CpuMode(name="host-model", supported=False)
    changes = [CpuFeature(policy="require", name=name) for name in named.more]
    changes += [CpuFeature(policy="disable", name=name) for name in named.less]
    model = KnownModel(name=named.model, fallback="forbid")
    return CpuMode(name="host-model", supported=True, models=[model], vendor=named.vendor, features=changes)


def _memory_backing(version: int) -> MemoryBackingSupport:
    if not acts_on(memory.MemoryBacking, "source"):
        return MemoryBackingSupport(supported=False)
    kinds = ("file", "anonymous", "memfd") if version >= 2_012_000 else ("file", "anonymous")
    return MemoryBackingSupport(supported=True, choices=[_choices("sourceType", kinds)])


def _devices(chosen: Chosen, has: Collection[str], cache: Path) -> DeviceSupport:
    transitional = _TRANSITIONAL if "virtio-pci-non-transitional" in has else ("virtio",)
    listed = probe.devices(chosen.path, cache)
    has_spice = probe.has_spice(chosen.path, cache)
    has_screens = {"vnc", *(["spice"] if has_spice else []), *probe.displays(chosen.path, cache)}
    screens = [kind.value for kind in _SCREENS if kind.value in has_screens]
    channels = ["pty", "unix", *(["spicevmc"] if has_spice else [])]
    videos = [name for name in _VIDEO_ORDER if name == "none" or _is_listed(listed, *VIDEO.get(name, ()))]
    return DeviceSupport(
        disk=_disk(chosen, has, listed, transitional),
        graphics=GraphicsSupport(supported=True, choices=[_choices("type", screens)]),
        video=VideoSupport(supported=True, choices=[_choices("modelType", videos)]),
        hostdev=_hostdev(has),
        rng=RngSupport(
            supported=True,
            choices=[_choices("model", transitional), _choices("backendModel", ("random", "egd", "builtin"))],
        ),
        filesystem=_filesystem(listed),
        tpm=_tpm(listed),
        redirdev=_redirdev(has),
        channel=ChannelSupport(supported=True, choices=[_choices("type", channels)]),
    )


def _is_listed(listed: str, *names: str | None) -> bool:
    return any(f'name "{name}"' in listed for name in names)


def _disk(chosen: Chosen, has: Collection[str], listed: str, models: Sequence[str]) -> DiskSupport:
    buses = ["fdc", "scsi", "virtio"]
    if x86_board(chosen.machine) == Board.I440FX:
        buses.insert(0, "ide")
    if 'name "usb-storage"' in listed:
        buses.append("usb")
    if "ich9-ahci" in has:
        buses.append("sata")
    kinds = ("disk", "cdrom", "floppy", "lun")
    return DiskSupport(
        supported=True, choices=[_choices("diskDevice", kinds), _choices("bus", buses), _choices("model", models)]
    )


def _hostdev(has: Collection[str]) -> HostdevSupport:
    starts = acts_on(domain.Devices, "hostdevs")
    kinds = [
        name
        for name, cls in (("usb", hostdev.UsbHostdev), ("pci", hostdev.PciHostdev), ("scsi", hostdev.ScsiHostdev))
        if starts and cls in FIELDS and (name != "usb" or not _USB_CONTROLLERS.isdisjoint(has))
    ]
    if not kinds:
        return HostdevSupport(supported=False)
    takes_pci = "pci" in kinds and "vfio-pci" in has and _VFIO.exists()
    return HostdevSupport(
        supported=True,
        choices=[
            _choices("mode", ("subsystem",)),
            _choices("startupPolicy", ("default", "mandatory", "requisite", "optional")),
            _choices("subsysType", kinds),
            _choices("capsType", ()),
            _choices("pciBackend", ("default", "vfio") if takes_pci else ()),
        ],
    )


def _filesystem(listed: str) -> FilesystemSupport:
    if not acts_on(domain.Devices, "filesystems"):
        return FilesystemSupport(supported=False)
    kinds = ["path", "handle"]
    if acts_on(filesystem.Filesystem, "binary") and 'name "vhost-user-fs-pci"' in listed:
        kinds.append("virtiofs")
    return FilesystemSupport(supported=True, choices=[_choices("driverType", kinds)])


def _tpm(listed: str) -> TpmSupport:
    models = [name for name in ("tpm-tis", "tpm-crb", "tpm-spapr") if _is_listed(listed, name, f"{name}-device")]
    if not acts_on(domain.Devices, "tpms") or not models:
        return TpmSupport(supported=False)
    choices = [_choices("model", models), _choices("backendModel", ("passthrough",))]
    if acts_on(platform.TpmBackend, "version") and shutil.which("swtpm") is not None:
        choices[1].values += ["emulator", "external"]
        choices.append(_choices("backendVersion", ("1.2", "2.0")))
    return TpmSupport(supported=True, choices=choices)


def _redirdev(has: Collection[str]) -> RedirdevSupport:
    if not acts_on(domain.Devices, "redirdevs") or "usb-redir" not in has:
        return RedirdevSupport(supported=False)
    return RedirdevSupport(supported=True, choices=[_choices("bus", ("usb",))])


def _sev(sev: Sev | None) -> SevSupport:
    if sev is None:
        return SevSupport(supported=False)
    return SevSupport(
        supported=True,
        cbitpos=sev.cbitpos,
        reduced_phys_bits=sev.reduced_phys_bits,
        max_guests=sev.max_guests,
        max_es_guests=sev.max_es_guests,
        cpu0_id=sev.cpu0_id,
    )


def _features(has: Collection[str], knows: Known, sev: Sev | None) -> FeatureSupport:
    told = {name.replace("-", "_") for name in knows.whole.hyperv} if knows.whole is not None else set()
    hyperv = [name for name in _HYPERV if name in told and acts_on(features.Hyperv, name)]
    return FeatureSupport(
        gic=GicSupport(supported=False),
        vmcoreinfo="vmcoreinfo" in has,
        genid="vmgenid" in has,
        backing_store_input=True,
        backup=True,
        sev=_sev(sev),
        sgx=SgxSupport(supported=False),
        hyperv=HypervSupport(supported=True, choices=[_choices("features", hyperv)]) if hyperv else None,
    )
