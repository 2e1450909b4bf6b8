"""Screens of running machines: another password."""

from __future__ import annotations

from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.qemu import screens
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.settings import Settings
from hostel.errors import ErrorCode, ErrorDomain, QmpError
from hostel.model.domain.completing.display import complete_password
from hostel.model.domain.devices.graphics import Graphics


def update_screen(machine: Running, wanted: Graphics, settings: Settings) -> None:
    """Change a screen's password, and what belongs to it; nothing else of it can be (``qemuDomainChangeGraphics``).

    Raises:
        VirtError: there is no such screen, it is to be otherwise, or QEMU refuses.
    """
    held_screens = machine.domain.devices.graphics
    index = next((number for number, item in enumerate(held_screens) if item.type == wanted.type), None)
    if index is None:
        what = f"cannot find existing graphics device to modify of type '{wanted.type}'"
        raise fault(ErrorCode.DEVICE_MISSING, f"device not found: {what}", ErrorDomain.QEMU)
    held = held_screens[index]
    with reading(ErrorDomain.DOMAIN):
        complete_password(wanted)
    change = _changed(held, wanted)
    if change is not None:
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, change, ErrorDomain.QEMU)
    if held.passwd is not None and wanted.passwd is None:
        raise failed("a password cannot be taken off a screen that is in use")
    after = held.copy()
    after.passwd, after.passwd_valid_to, after.connected = wanted.passwd, wanted.passwd_valid_to, wanted.connected
    if after == held and after.passwd_valid_to is None and after.connected != "disconnect":
        return
    try:
        screens.tell_password(machine.qmp, after, index, settings)
    except QmpError as error:
        raise machine.translated(error, "set_password") from error
    held_screens[index] = after
    machine.save()


def _changed(held: Graphics, wanted: Graphics) -> str | None:
    """What a screen that is in use would have otherwise."""
    kind = wanted.type
    if wanted.listen not in (None, held.listen, *(item.address for item in held.listens)):
        return f"cannot change listen address setting on '{kind}' graphics"
    if wanted.listens and len(wanted.listens) != len(held.listens):
        return f"cannot change the number of listen addresses on '{kind}' graphics"
    for now, then in zip(held.listens, wanted.listens, strict=False):
        if now.type != then.type:
            return f"cannot change the type of listen address on '{kind}' graphics"
        if then.address not in (None, now.address) or then.network != now.network:
            return f"cannot change listen address setting on '{kind}' graphics"
        if then.socket not in (None, now.socket):
            return f"cannot change listen socket setting on '{kind}' graphics"
    if wanted.port not in (None, -1, held.port) or wanted.tls_port not in (None, -1, held.tls_port):
        return f"cannot change port settings on {kind} graphics"
    return f"cannot change keymap setting on {kind} graphics" if wanted.keymap != held.keymap else None
