"""What virt-install adds to a guest on its own: the devices and settings that most machines want."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from hostel.cli.virt_install import disk, graphics, network
from hostel.cli.virt_install.general import add_timer, enable_uefi, set_model, spread_vcpus
from hostel.cli.virt_install.guest import DEVICES, Guest
from hostel.cli.virt_install.part import Part
from hostel.errors import UsageError

_AGENT: Final = "org.qemu.guest_agent.0"
_SPICE: Final = "com.redhat.spice.0"
_SPICE_CHANNELS: Final = ("spicevmc", "qemu-vdagent")
_SPINLOCK_RETRIES: Final = "8191"
# The machines that are meant where none is named, and another is the hypervisor's own default.
_MACHINES: Final = {
    **dict.fromkeys(("ppc64", "ppc64le"), ("pseries",)),
    **dict.fromkeys(("armv7l", "aarch64"), ("virt", "vexpress-a15")),
    **dict.fromkeys(("riscv64", "riscv32"), ("virt",)),
    "s390x": ("s390-ccw-virtio",),
}
Completion = Callable[[Guest, Part], None]


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
    for part in guest.devices["seclabel"]:
        complete_part(guest, part)
    if guest.is_x86 and (guest.host.is_qemu or guest.host.is_test):
        # A guest that may suspend does so on the power button, and many never wake up.
        domain.default("pm/suspend-to-mem/@enabled", "no")
        domain.default("pm/suspend-to-disk/@enabled", "no")
    _container(guest)
    _launch_security(guest)
    for kind in DEVICES:
        for part in guest.devices[kind]:
            complete_part(guest, part)
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
        usual = _MACHINES.get(guest.arch, ()) if guest.host.is_qemu else ()
        found = next((machine for machine in usual if machine in platform.machines), platform.machines[0])
        guest.domain.default("os/type/@machine", found)


def _firmware(guest: Guest) -> list[str]:
    """Have the machine boot with UEFI where that was asked for, or where its system or its kind needs it."""
    domain, is_pc = guest.domain, guest.is_x86 and (guest.host.is_qemu or guest.host.is_test)
    prefers = guest.hardware.efi if is_pc else guest.is_arm_virt or guest.host.driver == "bhyve"
    said = ("os/kernel", "os/loader", "os/loader/@readonly", "os/nvram", "os/@firmware")
    if not guest.wants_uefi and (not prefers or any(domain.get(path) is not None for path in said)):
        return []
    try:
        enable_uefi(guest)
    except UsageError as error:
        if guest.wants_uefi:
            raise
        return [f"Couldn't configure UEFI: {error}", "Your VM may not boot successfully."]
    return []


def _display(guest: Guest) -> None:
    devices, has_usb = guest.devices, not _usb_is_off(guest)
    has_screen = (guest.is_x86 or guest.is_pseries) and (not guest.is_container or guest.host.driver == "vz")
    if has_screen and not devices["graphics"] and "graphics" not in guest.without:
        guest.add("graphics")
    has_display = bool(devices["graphics"]) and not guest.is_container
    if has_display and not devices["video"]:
        guest.add("video")
    if has_display and not devices["input"] and has_usb:
        has_keyboard = guest.is_arm_virt or guest.is_riscv_virt or guest.is_pseries
        bus = "virtio" if guest.is_s390x else "usb"
        if guest.is_s390x or has_keyboard or (guest.is_x86 and not guest.is_paravirtual):
            guest.add("input", ("@type", "tablet"), ("@bus", bus))
        if guest.is_s390x or has_keyboard:
            guest.add("input", ("@type", "keyboard"), ("@bus", bus))
    if not devices["console"] and not devices["serial"] and "console" not in guest.without:
        console = guest.add("console", ("@type", "pty"))
        if guest.is_s390x:
            console.put("target/@type", "sclp")


def _usb_is_off(guest: Guest) -> bool:
    models = [part.get("@model") for part in guest.devices["controller"] if part.get("@type") == "usb"]
    return bool(models) and all(model == "none" for model in models)


def _usb(guest: Guest) -> None:
    if any(part.get("@type") == "usb" for part in guest.devices["controller"]):
        return
    has_usb3 = guest.hardware.usb3 if guest.is_x86 else guest.is_arm_virt or guest.is_riscv_virt or guest.is_pseries
    if has_usb3 and guest.host.is_qemu:
        guest.devices["controller"].append(guest.usb3())
    elif guest.is_x86 and (guest.host.is_qemu or guest.host.is_test):
        guest.devices["controller"] += guest.usb2()


def _virtio(guest: Guest) -> None:
    devices, hardware = guest.devices, guest.hardware
    if not devices["channel"] and "channel" not in guest.without and guest.virtio(supported=hardware.serial):
        guest.add("channel", ("@type", "unix"), ("target/@type", "virtio"), ("target/@name", _AGENT))
    has_virtio = guest.host.is_qemu and (guest.is_x86 or guest.is_virtual)
    if not devices["rng"] and "rng" not in guest.without and has_virtio and hardware.rng:
        guest.add("rng", ("backend/@model", "random"), ("backend", "/dev/urandom"))
    if not devices["memballoon"] and has_virtio and hardware.balloon:
        guest.add("memballoon", ("@model", "virtio"))
    if not devices["tpm"] and "tpm" not in guest.without and guest.is_uefi and guest.capabilities().has_tpm:
        guest.add("tpm", ("backend/@type", "emulator"))


def _clock(guest: Guest) -> None:
    if not guest.is_hvm:
        return
    domain = guest.domain
    windows = guest.hardware.windows
    domain.default("clock/@offset", "localtime" if guest.hardware.local_time else "utc")
    if domain.has("clock/timer") or not guest.is_x86 or not guest.host.is_qemu:
        return
    add_timer(domain, "rtc", "tickpolicy", "catchup")
    add_timer(domain, "pit", "tickpolicy", "delay")
    add_timer(domain, "hpet", "present", "no")
    if windows:
        add_timer(domain, "hypervclock", "present", "yes")


def _processor(guest: Guest) -> None:
    domain, host = guest.domain, guest.host
    if domain.has("cpu") or "cpu" in guest.without or not (host.is_qemu or host.is_test):
        return
    is_kvm = domain.get("@type") == "kvm"
    if guest.is_arm_virt and is_kvm:
        domain.put("cpu/@mode", "host-passthrough")
    elif guest.is_arm_virt and guest.arch == "aarch64":
        set_model(guest, "cortex-a57")  # the machine's own default is a processor of 32 bits
    elif guest.is_x86 and is_kvm and guest.arch == host.arch:
        told = guest.capabilities()
        mode = told.cpu_default if host.tells else "host-passthrough"
        set_model(guest, mode)
        model = domain.get("cpu/model")
        if mode == "host-model-only" and model is not None and not told.has_custom_model(model):
            domain.put("cpu/model", None)


def _features(guest: Guest) -> None:
    domain = guest.domain
    if guest.is_container:
        for path in ("features/acpi", "features/pae"):
            domain.put(path, None)
        if _has_root(guest) and guest.host.driver != "vz" and not domain.was_put("features/privnet"):
            domain.put("features/privnet", "")
    if not guest.is_hvm:
        return
    assert guest.platform is not None
    for name in ("acpi", "apic", "pae"):
        path = f"features/{name}"
        # Xen has it always, whatever it says.
        is_pae = name == "pae" and domain.get("@type") == "xen" and guest.arch == "x86_64"
        if (is_pae or name in guest.platform.features) and not domain.was_put(path):
            domain.put(path, "")
    if guest.hardware.windows:
        domain.default("features/hyperv/relaxed/@state", "on")
        domain.default("features/hyperv/vapic/@state", "on")
        domain.default("features/hyperv/spinlocks/@state", "on")
        domain.default("features/hyperv/spinlocks/@retries", _SPINLOCK_RETRIES)


def _container(guest: Guest) -> None:
    """A container runs its own first program where it has a whole system, or a shell."""
    if guest.is_container:
        guest.domain.default("os/init", "/sbin/init" if _has_root(guest) else "/bin/sh")


def _has_root(guest: Guest) -> bool:
    """Whether a container has a whole system of its own."""
    return any(part.get("target/@dir") == "/" for part in guest.devices["filesystem"])


def _launch_security(guest: Guest) -> None:
    domain = guest.domain
    if domain.get("launchSecurity/@type") != "sev":
        return
    if not guest.is_q35 or not guest.is_uefi:
        raise UsageError("SEV launch security requires a Q35 UEFI machine")
    told = guest.capabilities()
    has_es = told.supports("features/sev") and bool(told.text("features/sev/maxESGuests"))
    domain.default("launchSecurity/policy", "0x07" if has_es else "0x03")


def complete_part(guest: Guest, part: Part) -> None:
    """Fill in what was left open in one device."""
    complete = _COMPLETE.get(part.tag)
    if complete is not None:
        complete(guest, part)


def _character(guest: Guest, part: Part) -> None:
    kind = part.get("@type")
    if kind in ("unix", "tcp"):
        part.default("source/@mode", "bind")
    if part.tag == "channel":
        part.default("target/@type", "virtio")
    if kind in _SPICE_CHANNELS:
        part.default("target/@name", _SPICE)


def _input(guest: Guest, part: Part) -> None:
    part.default("@type", "mouse")
    if (what := part.get("@type")) != "evdev":
        part.default("@bus", "usb" if what == "tablet" else "xen" if guest.host.driver == "xen" else "ps2")


def _tpm(guest: Guest, part: Part) -> None:
    part.default("backend/@type", "passthrough" if part.get("backend/device/@path") else "emulator")
    if part.get("backend/@type") != "emulator" or part.get("backend/@version") is not None:
        return
    told = guest.capabilities()
    is_old = not told.has("devices/tpm") and not guest.is_pseries
    if is_old or "tpm-crb" in told.values("devices/tpm", "model"):
        part.default("@model", "tpm-crb")


def _sound(guest: Guest, part: Part) -> None:
    part.default("@model", "ich9" if guest.has_pcie else "ich6")


def _video(guest: Guest, part: Part) -> None:
    part.default("model/@type", _video_model(guest))
    if part.get("model/@type") == "virtio" and _has_gl(guest):
        part.default("model/acceleration/@accel3d", "yes")


def _video_model(guest: Guest) -> str | None:
    if not guest.is_hvm:
        return None
    if guest.is_pseries:
        return "vga"
    if guest.is_arm_virt or guest.is_riscv_virt or (guest.is_s390x and guest.host.is_qemu):
        return "virtio"
    has_spice, told = graphics.has_spice(guest), guest.capabilities()
    if has_spice and _has_gl(guest):
        return "virtio"
    models = told.values("devices/video", "modelType")
    has_virtio = "virtio" in models or (guest.host.is_qemu and not guest.host.tells)
    if has_virtio and guest.hardware.gpu:
        return "virtio"
    if guest.is_x86 and has_spice and ("qxl" in models or (not models and guest.has_spice)):
        return "qxl"
    return "bochs" if guest.is_uefi and "bochs" in models else "vga"


def _has_gl(guest: Guest) -> bool:
    return any(part.get("gl/@enable") == "yes" for part in guest.devices["graphics"])


def _hostdev(guest: Guest, part: Part) -> None:
    part.default("@managed", "no" if guest.host.driver == "xen" else "yes")
    part.default("@mode", "subsystem")


def _filesystem(guest: Guest, part: Part) -> None:
    if guest.host.driver in ("qemu", "test", "lxc"):
        part.default("@type", "mount")
        if part.get("driver/@type") != "virtiofs":
            part.default("@accessmode", "mapped")


def _smartcard(guest: Guest, part: Part) -> None:
    part.default("@mode", "passthrough")
    part.default("@type", "spicevmc" if part.get("@mode") == "passthrough" else "tcp")


def _panic(guest: Guest, part: Part) -> None:
    if part.get("address/@iobase") is not None:
        part.default("address/@type", "isa")
    model = "isa" if guest.is_x86 else "pseries" if guest.is_pseries else "s390" if guest.is_s390x else None
    part.default("@model", model)


def _vsock(guest: Guest, part: Part) -> None:
    part.default("@model", "virtio")
    if not part.has("cid"):
        part.put("cid/@auto", "yes")


def _iommu(guest: Guest, part: Part) -> None:
    if part.get("@model") is None:
        part.put("@model", "virtio" if guest.is_arm_virt else "intel" if guest.is_q35 else None)


def _seclabel(guest: Guest, part: Part) -> None:
    if part.get("@type") is None and part.get("@model") is None:
        return
    part.default("@type", "dynamic")
    part.default("@model", _security_model(guest, part.get("label")))


def _security_model(guest: Guest, label: str | None) -> str | None:
    models = guest.host.security_models
    if "testSecurity" in models:
        return "testSecurity"
    if not label:
        return models[0] if models else None
    return {3: "selinux", 2: "dac"}.get(min(3, len(label.split(":"))))


def _plain(*values: tuple[str, str]) -> Completion:
    def complete(guest: Guest, part: Part) -> None:
        for path, value in values:
            part.default(path, value)

    return complete


_COMPLETE: Final[dict[str, Completion]] = {
    "disk": disk.complete,
    "interface": network.complete,
    "graphics": graphics.complete,
    **dict.fromkeys(("serial", "parallel", "console", "channel"), _character),
    "input": _input,
    "tpm": _tpm,
    "sound": _sound,
    "video": _video,
    "hostdev": _hostdev,
    "filesystem": _filesystem,
    "smartcard": _smartcard,
    "panic": _panic,
    "vsock": _vsock,
    "iommu": _iommu,
    "seclabel": _seclabel,
    "redirdev": _plain(("@bus", "usb"), ("@type", "spicevmc")),
    "watchdog": _plain(("@model", "i6300esb"), ("@action", "reset")),
    "memballoon": _plain(("@model", "virtio")),
    "rng": _plain(("@model", "virtio")),
}


def _controllers(guest: Guest) -> None:
    kinds = {part.get("@type") for part in guest.devices["controller"]}
    on_scsi = any(part.get("target/@bus") == "scsi" for part in guest.devices["disk"])
    if on_scsi and "scsi" not in kinds and guest.virtio(supported=guest.hardware.scsi):
        guest.add("controller", ("@type", "scsi"), ("@model", "virtio-scsi"))
    if guest.has_pcie and "pci" not in kinds and guest.root_ports > 0:
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
        complete_part(guest, guest.add("sound"))
    if "redirdev" in guest.without or devices["redirdev"] or _usb_is_off(guest) or not guest.is_x86:
        return
    for _ in range(2):
        guest.add("redirdev", ("@bus", "usb"), ("@type", "spicevmc"))
