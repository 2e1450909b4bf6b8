"""The file in which UEFI keeps its variables: made at the first start from a template, and then the machine's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.opening import open_named
from hostel.drivers.store import sync_directory
from hostel.errors import BlockError, ErrorCode, ErrorDomain
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.os import Os

# Of firmware that no descriptor is for: what libvirt knows by itself.
_TEMPLATES: Final = {
    "/usr/share/OVMF/OVMF_CODE.fd": "/usr/share/OVMF/OVMF_VARS.fd",
    "/usr/share/OVMF/OVMF_CODE.secboot.fd": "/usr/share/OVMF/OVMF_VARS.fd",
    "/usr/share/OVMF/OVMF_CODE.ms.fd": "/usr/share/OVMF/OVMF_VARS.ms.fd",
    "/usr/share/OVMF/OVMF_CODE_4M.fd": "/usr/share/OVMF/OVMF_VARS_4M.fd",
    "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd": "/usr/share/OVMF/OVMF_VARS_4M.fd",
    "/usr/share/OVMF/OVMF_CODE_4M.ms.fd": "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
}
_QCOW2: Final = b"QFI\xfb"
_MOST: Final = 64 << 20  # bytes of a template; flash has at most 8 MiB


def local_path(found: Os) -> str | None:
    """The file on this host that variables are in; None where a document names none, or it is elsewhere."""
    nvram = found.nvram
    if nvram is None:
        return None
    if nvram.source is None:
        return nvram.path
    return nvram.source.file if nvram.type in (None, SourceType.FILE) else nvram.source.dev


def file_of(found: Os | None, usual: Path) -> Path | None:
    """The file on this host that variables are in, or will be once firmware is chosen; None where there is none.

    Args:
        found: of any document.
        usual: the file for one that names none.
    """
    if found is None:
        return None
    if (path := local_path(found)) is not None:
        return Path(path)
    is_stateless = found.loader is not None and bool(found.loader.stateless)
    if found.firmware != "efi" or is_stateless or (found.nvram is not None and found.nvram.source is not None):
        return None
    return usual_file(found, usual)


def usual_file(found: Os, usual: Path) -> Path:
    """The file for variables whose place the document does not say; its name ends as its format asks."""
    return usual.with_suffix(".qcow2") if found.nvram is not None and found.nvram.format_name == "qcow2" else usual


def prepare(found: Os, *, reset: bool, known: Mapping[str, str] = {}) -> None:
    """Make the variables of a machine that is about to start, where they are not there, or are to be made anew.

    Args:
        found: of a live document, with its firmware chosen.
        reset: whether what the guest kept is thrown away.
        known: templates that the host names, by the firmware's path.

    Raises:
        VirtError: ``OPERATION_UNSUPPORTED``: they are on a server, and to be made anew; ``OPERATION_FAILED``: nobody
            knows from what; ``SYSTEM_ERROR``: the host refuses. What was there is there still.
    """
    loader, nvram = found.loader, found.nvram
    if loader is None or nvram is None:
        return
    path = local_path(found)
    if path is None:
        if reset:
            what = "resetting of nvram is not supported with network backed nvram"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
        return
    if os.path.exists(path) and not reset:
        return
    template = nvram.template or {**_TEMPLATES, **known}.get(loader.path or "")
    if template is None:
        what = f"unable to find any master var store for loader: {loader.path}; write <nvram template='…'>"
        raise fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.QEMU)
    try:
        _make(Path(path), Path(template), nvram.format_name or "raw")
    except BlockError as error:
        raise fault(ErrorCode.OPERATION_FAILED, f"cannot make '{path}': {error}", ErrorDomain.QEMU) from error
    except OSError as error:
        what = f"Failed to make '{path}' from '{template}'"
        raise system_fault(error, what, ErrorDomain.QEMU) from error


def _make(path: Path, template: Path, format: str) -> None:
    """Make a file from a template, whole or not at all."""
    with open(template, "rb", opener=open_named) as stream:
        content = stream.read(_MOST + 1)
    if len(content) > _MOST:
        raise BlockError(f"'{template}' is no template of variables: it is larger than {_MOST >> 20} MiB")
    is_qcow2 = content.startswith(_QCOW2)
    if is_qcow2 and format != "qcow2":
        raise BlockError(f"'{template}' is a qcow2 image; write <nvram format='qcow2'>")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            if format == "raw" or is_qcow2:
                stream.write(content)
        if format != "raw" and not is_qcow2:
            _convert(made, template, format)
        with made.open("rb") as stream:
            os.fsync(stream.fileno())
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _convert(made: Path, template: Path, format: str) -> None:
    """Make an image of another format from a raw template."""
    # Imported here: most machines have no flash.
    from hostel.block import graph
    from hostel.img import convert

    with graph.open(str(template), "raw", read_only=True) as source:
        convert.convert([source], convert.plan_target([source], str(made), format))
