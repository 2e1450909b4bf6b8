"""The native formats of configuration, by the names that libvirt's ``domxml-from-native`` and ``-to-native`` take."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.errors import ErrorCode, ModelError

if TYPE_CHECKING:
    from hostel.model.domain.domain import Domain


class NativeFormat(NamedTuple):
    """One format.

    Attributes:
        name: libvirt's name of it.
        hypervisor: whose it is.
        reader: the function that makes a document of a text, as ``module:function``; empty where there is none.
        writer: the function that makes a text of a document, likewise.
    """

    name: str
    hypervisor: str
    reader: str = ""
    writer: str = ""


FORMATS: Final = {
    row.name: row
    for row in (
        NativeFormat(
            "vmware-vmx",
            "VMware",
            "hostel.model.native.vmx.reading:read_vmx",
            "hostel.model.native.vmx.writing:write_vmx",
        ),
        NativeFormat(
            "xen-xl",
            "Xen",
            "hostel.model.native.xen.reading:read_xl",
            "hostel.model.native.xen.writing:write_xl",
        ),
        NativeFormat(
            "xen-xm",
            "Xen",
            "hostel.model.native.xen.reading:read_xm",
            "hostel.model.native.xen.writing:write_xm",
        ),
        NativeFormat(
            "bhyve-argv",
            "bhyve",
            "hostel.model.native.bhyve.reading:read_bhyve",
            "hostel.model.native.bhyve.writing:write_bhyve",
        ),
        NativeFormat("qemu-argv", "QEMU", "hostel.model.native.qemu.reading:read_qemu"),
        NativeFormat("lxc-tools", "LXC", "hostel.model.native.lxc.reading:read_lxc"),
    )
}


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _format(name: str) -> NativeFormat:
    found = FORMATS.get(name)
    if found is None:
        known = ", ".join(FORMATS)
        raise ModelError("", f"unsupported config type {name}; known are {known}", code=ErrorCode.INVALID_ARG)
    return found


def read_native(name: str, text: str) -> Domain:
    """Read a configuration.

    Raises:
        ModelError: nobody knows the format, nothing reads it, or the text is none of it.
    """
    row = _format(name)
    if not row.reader:
        reason = f"{row.hypervisor}'s {name} can be written, and not be read"
        raise ModelError("", reason, code=ErrorCode.OPERATION_UNSUPPORTED)
    domain: Domain = _load(row.reader)(text)
    return domain


def write_native(name: str, xml: str) -> str:
    """Write a document as a configuration.

    Raises:
        ModelError: nobody knows the format, nothing writes it, or the document cannot be said in it.
    """
    row = _format(name)
    if not row.writer:
        reason = f"{row.hypervisor}'s {name} can be read, and not be written"
        raise ModelError("", reason, code=ErrorCode.OPERATION_UNSUPPORTED)
    text: str = _load(row.writer)(xml)
    return text
