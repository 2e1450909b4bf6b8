"""What ``<qemu:…>`` says of devices and of what QEMU gives up (``qemuBuildDeviceCommandlineHandleOverrides``)."""

from __future__ import annotations

import json
from typing import Any

from hostel.drivers.qemu.command.context import option
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.settings import Settings
from hostel.model.domain.domain import Domain
from hostel.model.domain.passthrough import QemuDevice, QemuProperty


def compatibility(domain: Domain, settings: Settings) -> list[str]:
    """``-compat``: what becomes of what QEMU gives up (``qemuBuildCompatDeprecatedCommandLine``)."""
    behavior = domain.qemu_deprecation.behavior if domain.qemu_deprecation is not None else settings.deprecation
    if behavior == "none":
        return []
    return option(
        "-compat", {"deprecated-output": "hide", "deprecated-input": behavior if behavior != "omit" else None}
    )


def overridden(argv: list[str], domain: Domain) -> list[str]:
    """A command line whose devices have the properties that ``<qemu:override>`` gives them, by their aliases.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: a value is none of its type, or there is no such device.
    """
    wanted = {device.alias: device for device in domain.qemu_override.devices} if domain.qemu_override else {}
    if not wanted:
        return argv
    changed = list(argv)
    for index, word in enumerate(argv[:-1]):
        if word == "-device" and argv[index + 1].startswith("{"):
            spec = json.loads(argv[index + 1])
            if (device := wanted.pop(spec.get("id"), None)) is not None:
                changed[index + 1] = json.dumps(_changed(spec, device))
    if wanted:
        raise unsupported(f"<qemu:override>: there is no device with the alias '{next(iter(wanted))}'")
    return changed


def _changed(spec: dict[str, Any], device: QemuDevice) -> dict[str, Any]:
    spec = dict(spec)
    for item in device.frontend.properties if device.frontend is not None else []:
        spec.pop(item.name, None)
        if item.type != "remove":
            spec[item.name] = _value(item)
    return spec


def _value(item: QemuProperty) -> str | int | bool:
    text = item.value or ""
    try:
        if item.type in ("signed", "unsigned"):
            number = int(text, 0)
            if number >= 0 or item.type == "signed":
                return number
        elif item.type == "bool" and text in ("true", "false"):
            return text == "true"
        elif item.type == "string":
            return text
    except ValueError:
        pass
    raise unsupported(f"<qemu:property name='{item.name}' type='{item.type}'>: '{text}' is no such value")
