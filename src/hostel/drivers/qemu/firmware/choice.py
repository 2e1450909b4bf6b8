"""Choosing firmware for a machine that is about to start (``qemuFirmwareFillDomain``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu.firmware.descriptor import Firmware, installed
from hostel.drivers.qemu.firmware.nvram import local_path, usual_file
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain
from hostel.model.domain.features import Features, SystemManagement
from hostel.model.domain.os import Loader, Nvram, Os
from hostel.model.domain.platform import arch_of

_INTERFACES: Final = {"efi": "uefi", "bios": "bios"}
_OF_LOADERS: Final = {"pflash": "uefi", "rom": "bios"}
_SEV_ES: Final = 4  # of a policy: the state of processors is encrypted, too


def choose(domain: Domain, directories: Sequence[Path], variables: Path, *, reset: bool = False) -> None:
    """Write into a live document which firmware it gets, where it asks for a kind of it.

    A document that names its firmware is completed by what a descriptor says of that, if there is one.

    Args:
        domain: complete; it names the firmware's files afterwards.
        directories: where descriptors are.
        variables: the file for UEFI's variables, for a document that names none.
        reset: the variables are to be made anew.

    Raises:
        VirtError: ``OPERATION_FAILED``: no firmware fits; ``OPERATION_INVALID``: it needs what the document forbids.
    """
    found = domain.os
    if found is None or (found.firmware is None and not _wants_template(found, reset=reset)):
        return
    all_of_them = installed(directories)
    chosen = next((firmware for firmware in all_of_them if _fits(domain, found, firmware)), None)
    if chosen is not None:
        _fill(domain, found, chosen, variables)
    elif found.firmware is not None:
        raise fault(ErrorCode.OPERATION_FAILED, _nothing_fits(found, all_of_them, directories), ErrorDomain.QEMU)


def _wants_template(found: Os, *, reset: bool) -> bool:
    """Whether UEFI that a document names lacks what its variables are made from."""
    loader, nvram = found.loader, found.nvram
    if loader is None or loader.type != "pflash" or not loader.readonly or (nvram is not None and nvram.template):
        return False
    path = local_path(found)
    if nvram is not None and nvram.source is not None and path is None:
        return False  # on a server: whether it is there is not ours to know
    return reset or path is None or not os.path.exists(path)


def _nothing_fits(found: Os, all_of_them: list[Firmware], directories: Sequence[Path]) -> str:
    hint = "install one, such as package ovmf"
    if all_of_them:
        hint = f"none of {', '.join(item.path.name for item in all_of_them)} is for this machine and what it asks for"
    return f"Unable to find any firmware to satisfy '{found.firmware}'; {hint} ({', '.join(map(str, directories))})"


def _fits(domain: Domain, found: Os, firmware: Firmware) -> bool:
    loader = found.loader or Loader()
    wanted = _INTERFACES.get(found.firmware or "")
    if found.firmware is None:
        wanted = _OF_LOADERS.get(loader.type or "")
        if firmware.device != "flash" or firmware.executable.path != loader.path:
            return False
    if wanted not in firmware.interfaces or not firmware.fits(arch_of(domain), found.type.machine or ""):
        return False
    features, pm = firmware.features, domain.pm
    if pm is not None and (
        (pm.suspend_to_mem and "acpi-s3" not in features) or (pm.suspend_to_disk and "acpi-s4" not in features)
    ):
        return False
    asked = found.firmware_features.features if found.firmware_features is not None else []
    if any(item.enabled != (item.name in features) for item in asked):
        return False
    if loader.secure and "requires-smm" not in features:
        return False
    if firmware.device == "flash" and firmware.mode != ("stateless" if loader.stateless else "split"):
        return False
    return _fits_security(domain, features)


def _fits_security(domain: Domain, features: frozenset[str]) -> bool:
    security = domain.launch_security
    if security is None or security.type != "sev":
        return True
    policy = security.policy or 0
    return "amd-sev" in features and (not policy & _SEV_ES or "amd-sev-es" in features)


def _fill(domain: Domain, found: Os, firmware: Firmware, variables: Path) -> None:
    if firmware.device == "kernel":
        found.kernel = firmware.executable.path
    else:
        loader = found.loader = found.loader or Loader()
        loader.path = firmware.executable.path
        if firmware.device == "memory":
            loader.type = "rom"
        else:
            loader.type, loader.readonly = "pflash", True
            loader.format_name = _unless_raw(firmware.executable.format)
        if firmware.template is not None:
            nvram = found.nvram = found.nvram or Nvram()
            nvram.template = firmware.template.path
            if nvram.path is None and nvram.source is None:
                nvram.path = str(usual_file(found, variables))
        if "requires-smm" in firmware.features:
            _turn_on_smm(domain)
            loader.secure = True
    found.firmware = found.firmware_features = None


def _unless_raw(format: str) -> str | None:
    return None if format == "raw" else format


def _turn_on_smm(domain: Domain) -> None:
    features = domain.features = domain.features or Features()
    smm = features.smm = features.smm or SystemManagement()
    if smm.state is False:
        what = "domain has SMM turned off but chosen firmware requires it"
        raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)
    smm.state = True
