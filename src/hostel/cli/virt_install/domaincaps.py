"""What the hypervisor says of one kind of machine: the domain capabilities document."""

from __future__ import annotations

import re
from typing import Any, Final

from hostel.codec import xmltext
from hostel.errors import UsageError

# The usual names of UEFI binaries, by the processor they are for; the first that matches is taken.
_UEFI: Final = {
    "i686": (r".*edk2-i386-.*\.fd", r".*ovmf-ia32.*"),
    "x86_64": (
        r".*edk2-x86_64-.*\.fd", r".*OVMF_CODE\.fd", r".*ovmf-x64/OVMF.*\.fd", r".*ovmf-x86_64-.*", r".*ovmf.*",
        r".*OVMF.*",
    ),
    "aarch64": (r".*AAVMF_CODE\.fd", r".*aarch64/QEMU_EFI.*", r".*aarch64.*", r".*edk2-aarch64-code\.fd"),
    "armv7l": (r".*AAVMF32_CODE\.fd", r".*arm/QEMU_EFI.*", r".*edk2-arm-code\.fd"),
}  # fmt: skip
# What a processor can do against its own flaws; virt-install asks for these beside any named model.
_SECURITY: Final = ("spec-ctrl", "ssbd", "ibpb", "virt-ssbd", "md-clear")


class DomainCapabilities:
    """The document, or nothing where the driver has none."""

    def __init__(self, xml: str | None) -> None:
        self._root: Any = None if xml is None else xmltext.parse(xml, "domainCapabilities")

    def values(self, where: str, name: str) -> list[str]:
        """The values of an enumeration, such as ``firmware`` in ``os``."""
        if self._root is None:
            return []
        return [value.text or "" for value in self._root.iterfind(f"{where}/enum[@name='{name}']/value")]

    def has(self, where: str) -> bool:
        """Whether a device or a feature is told of, as there or as missing."""
        return self._root is not None and self._root.find(where) is not None

    def supports(self, where: str) -> bool:
        """Whether a device or a feature is there."""
        element = None if self._root is None else self._root.find(where)
        return element is not None and element.get("supported") == "yes"

    def text(self, where: str) -> str | None:
        """The text of an element."""
        return None if self._root is None else self._root.findtext(where)

    def mode(self, name: str) -> Any:
        """The element of a CPU mode that is supported; None where it is not."""
        if self._root is None:
            return None
        return self._root.find(f"cpu/mode[@name='{name}'][@supported='yes']")

    @property
    def cpu_default(self) -> str:
        """The best way to have the host's processor."""
        passthrough, model = self.mode("host-passthrough"), self.mode("host-model")
        if passthrough is not None and "on" in [
            value.text for value in passthrough.iterfind("enum[@name='hostPassthroughMigratable']/value")
        ]:
            return "host-passthrough"
        first = None if model is None else model.find("model")
        return "host-model" if first is not None and first.get("fallback") == "forbid" else "host-model-only"

    def has_custom_model(self, name: str) -> bool:
        """Whether a machine can have a processor of this model; true where nothing is said about it."""
        custom = self.mode("custom")
        if custom is None:
            return True
        return any(model.text == name and model.get("usable") != "no" for model in custom.iterfind("model"))

    @property
    def has_tpm(self) -> bool:
        """Whether a TPM can be emulated."""
        models = self.values("devices/tpm", "model")
        # armv7l machines are refused the one that is told of: https://gitlab.com/libvirt/libvirt/-/issues/329
        if self.text("arch") == "armv7l" and models == ["tpm-tis"]:
            return False
        return bool(models) and "emulator" in self.values("devices/tpm", "backendModel")

    def uefi(self, arch: str) -> str:
        """The file with the firmware for UEFI.

        Raises:
            UsageError: there is none for this processor.
        """
        if "yes" not in self.values("os/loader", "readonly"):
            raise UsageError("Libvirt version does not support UEFI.")
        arch = self.text("arch") or arch
        if arch not in _UEFI and not self._loaders():
            raise UsageError(f"Don't know how to setup UEFI for arch '{arch}'")
        for pattern in _UEFI.get(arch, ()):
            for path in self._loaders():
                if re.match(pattern, path):
                    return path
        raise UsageError(f"Did not find any UEFI binary path for arch '{arch}'")

    def _loaders(self) -> list[str]:
        return [value.text or "" for value in self._root.iterfind("os/loader/value")]


def security_features(expanded: str) -> list[str]:
    """Which of a processor's features are for its security; ``expanded`` is its document with every feature."""
    names = [feature.get("name") for feature in xmltext.parse(expanded, "cpu").iterfind("feature")]
    return [name for name in names if name in _SECURITY]


def host_model(found: DomainCapabilities) -> str | None:
    """The document of the processor that ``host-model`` stands for; None where it is not told."""
    from lxml import etree

    mode = found.mode("host-model")
    if mode is None:
        return None
    cpu = etree.Element("cpu")
    etree.SubElement(cpu, "arch").text = found.text("arch")
    for child in mode:
        copied = etree.fromstring(etree.tostring(child))
        copied.tail = None
        cpu.append(copied)
    return etree.tostring(cpu, encoding="unicode")
