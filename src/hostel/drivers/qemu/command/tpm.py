"""Trusted platform modules: the host's own, and those that a program emulates."""

from __future__ import annotations

from pathlib import Path

from hostel.drivers.qemu.command.context import Context, alias_of, escape, option
from hostel.drivers.qemu.command.place import place
from hostel.drivers.qemu.helper.tpm import socket_of
from hostel.model.domain.devices.platform import Tpm, TpmSource
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import arch_of


def arguments(domain: Domain, context: Context) -> list[str]:
    """Every TPM of the document."""
    argv: list[str] = []
    for tpm in domain.devices.tpms:
        name, backend = alias_of(tpm), tpm.backend
        if tpm.model == "spapr-tpm-proxy":
            argv += option("-device", {"driver": tpm.model, "id": name, "host-path": backend.device})
            continue
        if backend.type == "passthrough":
            argv += ["-tpmdev", f"passthrough,id=tpm-{name},{_passed(tpm)}"]
        else:
            path = (backend.source or TpmSource()).path or str(socket_of(context.run))
            argv += ["-chardev", f"socket,id=chrtpm,path={escape(path)}"]
            argv += ["-tpmdev", f"emulator,id=tpm-{name},chardev=chrtpm"]
        is_sysbus = tpm.model == "tpm-tis" and arch_of(domain) == "aarch64"
        spec = {"driver": "tpm-tis-device" if is_sysbus else tpm.model, "tpmdev": f"tpm-{name}", "id": name}
        argv += option("-device", {**spec, **place(domain, tpm)})
    return argv


def _passed(tpm: Tpm) -> str:
    """The host's TPM, and what cancels a command that it works on."""
    device = tpm.backend.device or "/dev/tpm0"
    folder = Path("/sys/class/tpm") / Path(device).name
    cancel = next((path for path in (folder / "device/cancel", folder / "cancel") if path.exists()), Path("/dev/null"))
    return f"path={escape(device)},cancel-path={escape(str(cancel))}"
