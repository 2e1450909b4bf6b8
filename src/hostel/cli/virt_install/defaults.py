"""What virt-install adds to a guest on its own: the devices and settings that most machines want."""

from __future__ import annotations

import uuid
from typing import Final

from hostel.cli.virt_install import disk, graphics, network
from hostel.cli.virt_install.general import add_timer, spread_vcpus
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.part import Part

_AGENT: Final = "org.qemu.guest_agent.0"
_SPICE: Final = "com.redhat.spice.0"
_SPICE_CHANNELS: Final = ("spicevmc", "qemu-vdagent")
_SPINLOCK_RETRIES: Final = "8191"


def complete(guest: Guest) -> list[str]:
    """Fill in everything that was left open; returns what the user should know about it.

    Raises:
        UsageError: what was asked for contradicts itself.
    """
    domain = guest.domain
    guest.resolve()
    domain.default("uuid", str(uuid.uuid4()))
    spread_vcpus(guest, 1)
    _machine(guest)
    warnings = _firmware(guest)
    _display(guest)
    _usb(guest)
    _virtio(guest)
    _clock(guest)
    _processor(guest)
    _features(guest)
    if guest.is_x86:
        # A guest that may suspend does so on the power button, and many never wake up.
        domain.default("pm/suspend-to-mem/@enabled", "no")
        domain.default("pm/suspend-to-disk/@enabled", "no")
    _devices(guest)
    _controllers(guest)
    if graphics.has_spice(guest):
        _spice(guest)
    return warnings


def _machine(guest: Guest) -> None:
    platform = guest.platform
    assert platform is not None
    if guest.is_x86 and guest.host.is_qemu and "q35" in platform.machines and guest.hardware.q35:
        guest.domain.default("os/type/@machine", "q35")
    elif platform.machines:
        guest.domain.default("os/type/@machine", platform.machines[0])


def _firmware(guest: Guest) -> list[str]:
    firmware = guest.domain.get("os/loader") or guest.domain.get("os/@firmware")
    if not guest.hardware.efi or firmware is not None or not guest.host.is_qemu:
        return []
    why = f"{guest.system.name} needs it; say --boot uefi"
    return [f"Couldn't configure UEFI: {why}", "Your VM may not boot successfully."]


def _display(guest: Guest) -> None:
    devices = guest.devices
    if not devices["graphics"] and "graphics" not in guest.without and guest.is_x86:
        guest.add("graphics")
    if devices["graphics"] and not devices["video"]:
        guest.add("video")
    if devices["graphics"] and not devices["input"] and guest.is_x86 and not _usb_is_off(guest):
        guest.add("input", ("@type", "tablet"), ("@bus", "usb"))
    if not devices["console"] and not devices["serial"] and "console" not in guest.without:
        guest.add("console", ("@type", "pty"))


def _usb_is_off(guest: Guest) -> bool:
    models = [part.get("@model") for part in guest.devices["controller"] if part.get("@type") == "usb"]
    return bool(models) and all(model == "none" for model in models)


def _usb(guest: Guest) -> None:
    if any(part.get("@type") == "usb" for part in guest.devices["controller"]) or not guest.is_x86:
        return
    if guest.hardware.usb3 and guest.host.is_qemu:
        guest.add_usb3()
    else:
        guest.add_usb2()


def _virtio(guest: Guest) -> None:
    devices, hardware = guest.devices, guest.hardware
    if not devices["channel"] and "channel" not in guest.without and guest.virtio(supported=hardware.serial):
        guest.add("channel", ("@type", "unix"), ("target/@type", "virtio"), ("target/@name", _AGENT))
    if not devices["rng"] and "rng" not in guest.without and guest.virtio(supported=hardware.rng):
        guest.add("rng", ("backend/@model", "random"), ("backend", "/dev/urandom"))
    if not devices["memballoon"] and guest.virtio(supported=hardware.balloon):
        guest.add("memballoon", ("@model", "virtio"))


def _clock(guest: Guest) -> None:
    if not guest.is_hvm:
        return
    domain = guest.domain
    windows = guest.hardware.windows
    domain.default("clock/@offset", "localtime" if windows else "utc")
    if domain.has("clock/timer") or not guest.is_x86 or not guest.host.is_qemu:
        return
    add_timer(domain, "rtc", "tickpolicy", "catchup")
    add_timer(domain, "pit", "tickpolicy", "delay")
    add_timer(domain, "hpet", "present", "no")
    if windows:
        add_timer(domain, "hypervclock", "present", "yes")


def _processor(guest: Guest) -> None:
    domain = guest.domain
    if domain.has("cpu") or domain.was_put("cpu") or not guest.is_x86:
        return
    if domain.get("@type") == "kvm" and domain.get("os/type/@arch") == guest.host.arch:
        domain.put("cpu/@mode", "host-passthrough")


def _features(guest: Guest) -> None:
    if not guest.is_hvm:
        return
    domain = guest.domain
    assert guest.platform is not None
    for name in ("acpi", "apic", "pae"):
        path = f"features/{name}"
        if name in guest.platform.features and not domain.was_put(path):
            domain.put(path, "")
    if guest.hardware.windows:
        domain.default("features/hyperv/relaxed/@state", "on")
        domain.default("features/hyperv/vapic/@state", "on")
        domain.default("features/hyperv/spinlocks/@state", "on")
        domain.default("features/hyperv/spinlocks/@retries", _SPINLOCK_RETRIES)


def _devices(guest: Guest) -> None:
    disk.complete(guest)
    network.complete(guest)
    graphics.complete(guest)
    devices = guest.devices
    for kind in ("serial", "parallel", "console", "channel"):
        for part in devices[kind]:
            _character(part)
    for part in devices["input"]:
        part.default("@type", "mouse")
        if (what := part.get("@type")) != "evdev":
            part.default("@bus", "usb" if what == "tablet" else "ps2")
    _tpm(guest)
    for part in devices["sound"]:
        part.default("@model", "ich9" if guest.is_q35 else "ich6")
    for part in devices["video"]:
        part.default("model/@type", _video(guest))
        if part.get("model/@type") == "virtio" and _has_gl(guest):
            part.put("model/acceleration/@accel3d", "yes")
    for kind, path, value in (
        ("redirdev", "@bus", "usb"),
        ("redirdev", "@type", "spicevmc"),
        ("watchdog", "@model", "i6300esb"),
        ("watchdog", "@action", "reset"),
        ("memballoon", "@model", "virtio"),
        ("rng", "@model", "virtio"),
        ("panic", "@model", "isa"),
        ("vsock", "@model", "virtio"),
    ):
        for part in devices[kind]:
            part.default(path, value)
    for part in devices["vsock"]:
        if not part.has("cid"):
            part.put("cid/@auto", "yes")


def _character(part: Part) -> None:
    kind = part.get("@type")
    if kind in ("unix", "tcp"):
        part.default("source/@mode", "bind")
    if part.tag == "channel":
        part.default("target/@type", "virtio")
    if kind in _SPICE_CHANNELS:
        part.default("target/@name", _SPICE)


def _tpm(guest: Guest) -> None:
    for part in guest.devices["tpm"]:
        part.default("backend/@type", "passthrough" if part.get("backend/device/@path") else "emulator")
        if part.get("backend/@type") == "emulator" and part.get("backend/@version") is None:
            part.default("@model", "tpm-crb")


def _video(guest: Guest) -> str | None:
    if not guest.is_hvm:
        return None
    has_spice = graphics.has_spice(guest)
    if guest.virtio(supported=guest.hardware.gpu) or (has_spice and _has_gl(guest)):
        return "virtio"
    return "qxl" if guest.is_x86 and has_spice else "vga"


def _has_gl(guest: Guest) -> bool:
    return any(part.get("gl/@enable") == "yes" for part in guest.devices["graphics"])


def _controllers(guest: Guest) -> None:
    kinds = {part.get("@type") for part in guest.devices["controller"]}
    on_scsi = any(part.get("target/@bus") == "scsi" for part in guest.devices["disk"])
    if on_scsi and "scsi" not in kinds and guest.virtio(supported=guest.hardware.scsi):
        guest.add("controller", ("@type", "scsi"), ("@model", "virtio-scsi"))
    if guest.is_q35 and "pci" not in kinds and guest.root_ports > 0:
        guest.add("controller", ("@type", "pci"), ("@model", "pcie-root"))
        for _ in range(guest.root_ports):
            guest.add("controller", ("@type", "pci"), ("@model", "pcie-root-port"))


def _spice(guest: Guest) -> None:
    """Add what a SPICE viewer works with: the agent's channel, sound, and USB ports."""
    devices = guest.devices
    if guest.is_x86:
        guest.domain.default("features/vmport/@state", "off")
    if "channel" not in guest.without and not any(part.get("@type") == "spicevmc" for part in devices["channel"]):
        guest.add("channel", ("@type", "spicevmc"), ("target/@type", "virtio"), ("target/@name", _SPICE))
    if "sound" not in guest.without and not devices["sound"] and guest.is_hvm:
        guest.add("sound", ("@model", "ich9" if guest.is_q35 else "ich6"))
    if "redirdev" in guest.without or devices["redirdev"] or _usb_is_off(guest) or not guest.is_x86:
        return
    for _ in range(2):
        guest.add("redirdev", ("@bus", "usb"), ("@type", "spicevmc"))
