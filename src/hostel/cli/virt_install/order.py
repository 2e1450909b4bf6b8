"""The order in which virt-install writes an element's content, where it is not that in which it was asked for."""

from __future__ import annotations

from typing import Final

VIRTIO_DRIVER: Final = ("driver/@ats", "driver/@iommu", "driver/@packed", "driver/@page_per_vq")
ADDRESS: Final = tuple(
    f"address/@{name}"
    for name in ("type", "domain", "controller", "bus", "slot", "function", "target", "unit", "multifunction")
)
# Every device ends its own order with these; "*" is where everything unlisted goes, in the order it was put. A "$" at
# the end of an entry stands for the element alone, without what is in it.
_DEVICE: Final = (*VIRTIO_DRIVER, "alias", *ADDRESS, "address", "*", "boot")
OTHER: Final = _DEVICE
_SOURCE: Final = (
    "source[@mode='bind']/@host", "source[@mode='bind']/@service", "source/@mode",
    "source[@mode='connect']/@host", "source[@mode='connect']/@service", "source/@path", "source/@channel",
    *(f"source/{name}" for name in ("@host", "@service", "@master", "@slave", "@tls", "clipboard", "mouse")),
    "protocol", "log", "source",
)  # fmt: skip
_CHARACTER: Final = ("@type", *_SOURCE, "target/@type", "target/@name", "target/@state", *_DEVICE)
SMBIOS: Final = {
    "bios": ("vendor", "version", "date", "release"),
    "system": ("manufacturer", "product", "version", "serial", "uuid", "sku", "family"),
    "baseBoard": ("manufacturer", "product", "version", "serial", "asset", "location"),
    "chassis": ("manufacturer", "version", "serial", "asset", "sku"),
}
ORDERS: Final[dict[str, tuple[str, ...]]] = {
    "disk": (
        "@type", "@device", "@snapshot", "driver/@name", "driver/@type", "driver/@cache", "driver/@discard",
        "driver/@detect_zeroes", "driver/@io", "driver/@iothread", "driver/@queues", "driver/@error_policy", "auth",
        "source/@file", "source/@dev", "source/@dir", "source/@volume", "source/@pool", "source/@protocol",
        "source/@name", "source/host", "source/@type", "source/@managed", "source/@namespace", "source/address",
        "target/@dev", "target/@bus", *_DEVICE, "source/seclabel",
    ),
    "interface": (
        "source/@bridge", "source/@network", "source/@dev", "source/@type", "source/@path", "source/@mode",
        "source/@portgroup", "mac", "target", "model", "virtualport", "filterref", "rom/@bar", "rom/@file", "mtu",
        *_DEVICE,
    ),
    "graphics": (
        "@type", "gl/@enable", "@port", "@tlsPort", "@autoport", "@websocket", "@keymap", "@listen", "@passwd",
        "@display", "@xauth", *_DEVICE[:-1], "listen",
    ),
    "controller": ("@type", "@index", "@model", "master", "driver/@queues", "@maxGrantFrames", *_DEVICE),
    "video": ("model/@type", "model/@vram", "model/@heads", "model/@vgamem", *_DEVICE),
    "watchdog": ("@model", "@action", *_DEVICE),
    "redirdev": ("@bus", "@type", *_SOURCE, *_DEVICE),
    "sound": (*_DEVICE, "codec"),
    "hostdev": (
        "@mode", "@type", "@managed", "source/vendor", "source/product", "source/adapter", "source/address/@domain",
        "source/address/@bus", "source/address/@slot", "source/address/@function", "@model", "@display", "@ramfb",
        *_DEVICE,
    ),
    "filesystem": ("@type", "@accessmode", "@fmode", "@dmode", *_DEVICE),
    "smartcard": ("@mode", "@type", *_DEVICE, *_SOURCE, "certificate"),
    "shmem": ("@name", "@role", "model/@type", "size$", "size/@unit", "server", "msi", *_DEVICE),
    "memory": (*_DEVICE, "source", "target"),
    "tpm": (*_DEVICE, "active_pcr_banks"),
    "seclabel": ("@type", "@model", "@relabel", "label", "*"),
    "sysinfo": (
        "@type", *(f"{block}/entry[@name='{name}']" for block, names in SMBIOS.items() for name in names),
        "oemStrings", "*",
    ),
    "rng": (*_DEVICE, *(f"backend/{path}" for path in _SOURCE)),
    **dict.fromkeys(("serial", "parallel", "channel", "console"), _CHARACTER),
}  # fmt: skip
# The domain's own elements; the devices stand in "devices".
DOMAIN: Final = (
    "@type", "name", "uuid", "genid", "title", "description", "metadata",
    "iothreads", "iothreadids", "defaultiothread", "maxMemory", "memory", "currentMemory", "blkiotune", "memtune",
    "memoryBacking/hugepages$", "memoryBacking/nosharepages", "memoryBacking/locked", "memoryBacking/hugepages",
    "memoryBacking", "vcpu$", "vcpu/@current", "vcpu/@placement", "vcpu/@cpuset", "vcpus",
    "numatune/memory/@mode", "numatune", "resource",
    "sysinfo",
    "bootloader", "bootloader_args",
    "os/@firmware", "os/type$", "os/type/@arch", "os/type/@machine", "os/firmware", "os/loader$",
    "os/loader/@readonly", "os/loader/@secure", "os/loader/@type", "os/nvram$", "os/nvram", "os/init", "os/initarg",
    "os/initenv", "os/initdir", "os/inituser", "os/initgroup", "os/kernel", "os/initrd", "os/cmdline", "os/dtb",
    "os/acpi/table$", "os/acpi", "os/boot", "os/bootmenu/@enable", "os/bootmenu/@timeout", "os/bios/@useserial",
    "os/bios/@rebootTimeout", "os/smbios", "os", "idmap",
    "features/acpi", "features/apic$", "features/pae", "features/gic", "features",
    "cpu/@mode", "cpu/@match", "cpu/@check", "cpu/@migratable", "cpu/model$", "cpu/model/@fallback",
    "cpu/model/@vendor_id", "cpu/vendor", "cpu/topology/@sockets", "cpu/topology/@dies", "cpu/topology/@cores",
    "cpu/topology/@threads", "cpu/cache/@level", "cpu/cache/@mode", "cpu/feature",
    *(f"cpu/numa/cell/@{name}" for name in ("id", "cpus", "memory", "unit", "memAccess", "discard")), "cpu/numa/cell",
    "cpu", "clock",
    "on_poweroff", "on_reboot", "on_crash", "pm", "devices",
    "launchSecurity/@type", "launchSecurity/cbitpos", "launchSecurity/reducedPhysBits", "launchSecurity/policy",
    "launchSecurity/session", "launchSecurity/dhCert", "launchSecurity",
    "seclabel", "keywrap", "*",
    "cputune", "qemu:commandline/qemu:arg", "qemu:commandline",
)  # fmt: skip
