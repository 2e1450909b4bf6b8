"""Changing who can open a LUKS volume: passphrases added, replaced and taken away (``qemu-img amend``).

A cut at any write leaves the volume with a key that opens it: a slot is written before it is called active, called
inactive before it is wiped, and an active one is replaced only after the new passphrase has a place elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from hostel.block import objects
from hostel.block.crypto.header import DISABLED, SLOTS, slot_offset
from hostel.block.crypto.luks import LuksVolume, iter_time_of
from hostel.block.options import Kind, Option, OptionError, Options, Value
from hostel.errors import BlockError
from hostel.units import SECTOR

_WIPES: Final = 40  # times that key material is written over, as QEMU does
AMEND_OPTIONS: Final = (
    Option("state", Kind.STRING, "Select new state of affected keyslots (active/inactive)"),
    Option("keyslot", Kind.NUMBER, "Select a single keyslot to modify explicitly"),
    Option("old-secret", Kind.STRING, "Select all keyslots that match this password"),
    Option("new-secret", Kind.STRING, "New secret to set in the matching keyslots. Empty string to erase"),
    Option("iter-time", Kind.NUMBER, "Time to spend in PBKDF in milliseconds"),
)


def amend_options(prefix: str = "") -> Options:
    """The options that change key slots, their names with a prefix."""
    return Options(*(option._replace(name=prefix + option.name) for option in AMEND_OPTIONS))


def amend_keys(
    volume: LuksVolume, options: Mapping[str, Value], *, prefix: str, secret: str | None, force: bool
) -> None:
    """Change key slots as the options say.

    Args:
        volume: to be changed.
        options: converted, their names with ``prefix``.
        prefix: before the names of the options.
        secret: the id of the passphrase that the volume was opened with.
        force: also what makes the data unreadable for ever.

    Raises:
        OptionError: the options contradict each other, or something is missing.
        BlockError: a passphrase does not fit, or the last key would be lost.
        OSError: the host's own errors.
    """
    given = {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}
    state = given.get("state")
    if state is None:
        raise OptionError("Parameter 'state' is missing")
    if state not in ("active", "inactive"):
        raise OptionError(f"Parameter 'state' does not accept value '{state}'")
    if state == "active":
        _add(volume, given, secret, force=force)
    else:
        _erase(volume, given, force=force)


def _add(volume: LuksVolume, given: Mapping[str, Value], secret: str | None, *, force: bool) -> None:
    if "new-secret" not in given:
        raise OptionError("'new-secret' is required to activate a keyslot")
    if "old-secret" in given:
        raise OptionError("'old-secret' must not be given when activating keyslots")
    iter_time = iter_time_of(given, "")
    active = volume.header.active_slots()
    free = [index for index in range(SLOTS) if index not in active]
    if "keyslot" in given:
        index = _slot(given)
    elif free:
        index = free[0]
    else:
        raise BlockError("Can't add a keyslot - all keyslots are in use", errno=errno.EINVAL)
    if index in active and not force:
        raise BlockError(f"Refusing to overwrite active keyslot {index} - please erase it first", errno=errno.EINVAL)
    try:
        key = volume.unlock(objects.password(secret or ""))
    except BlockError as error:
        error.hint = "Failed to retrieve the master key"
        raise
    password = objects.password(str(given["new-secret"]))
    if index not in active:
        volume.write_key(index, password, key, iter_time)
        return
    # Until the slot has its new content, the new passphrase has a place beside it.
    spare = free[0] if free else None
    if spare is not None:
        volume.write_key(spare, password, key, iter_time)
    _deactivate(volume, index)
    volume.write_key(index, password, key, iter_time)
    if spare is not None:
        erase_slot(volume, spare)


def _erase(volume: LuksVolume, given: Mapping[str, Value], *, force: bool) -> None:
    for name in ("new-secret", "iter-time"):
        if name in given:
            raise OptionError(f"'{name}' must not be given when erasing keyslots")
    old = objects.password(str(given["old-secret"])) if "old-secret" in given else None
    active = volume.header.active_slots()
    if "keyslot" in given:
        index = _slot(given)
        if old is not None and volume.key_in(index, old) is None:
            raise BlockError(
                f"Given keyslot {index} doesn't contain the given old password for erase operation",
                errno=errno.EINVAL,
            )
        if index not in active and not force:
            raise BlockError(f"Given keyslot {index} is already erased (inactive) ", errno=errno.EINVAL)
        if len(active) == 1 and not force:
            raise BlockError(
                f"Attempt to erase the only active keyslot {index} which will erase all the data in the image "
                "irreversibly - refusing operation",
                errno=errno.EINVAL,
            )
        erase_slot(volume, index)
        return
    if old is None:
        raise OptionError(
            "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be "
            "given"
        )
    matching = [index for index in active if volume.key_in(index, old) is not None]
    if not matching:
        raise BlockError("No keyslots match given (old) password for erase operation", errno=errno.EINVAL)
    if matching == active and not force:
        raise BlockError(
            "All the active keyslots match the (old) password that was given and erasing them will erase all the data "
            "in the image irreversibly - refusing operation",
            errno=errno.EINVAL,
        )
    for index in matching:
        erase_slot(volume, index)


def _slot(given: Mapping[str, Value]) -> int:
    index = int(given["keyslot"])
    if index >= SLOTS:
        # QEMU prints 32 bits of it: with a sign only where it is erased.
        low = index % 2**32
        shown = low - 2**32 if low >= 2**31 and given.get("state") == "inactive" else low
        raise OptionError(f"Invalid keyslot {shown} specified, must be between 0 and {SLOTS - 1}")
    return index


def _deactivate(volume: LuksVolume, index: int) -> None:
    slot = volume.header.slots[index].replace(active=DISABLED)
    volume.write(slot_offset(index), DISABLED.to_bytes(4, "big"))
    volume.header.slots[index] = slot


def erase_slot(volume: LuksVolume, index: int) -> None:
    """Call a slot inactive, and write over what it held.

    Raises:
        OSError: the host's own errors.
    """
    header = volume.header
    _deactivate(volume, index)
    slot = header.slots[index].replace(iterations=0, salt=bytes(len(header.slots[index].salt)))
    volume.write(slot_offset(index), slot.pack())
    header.slots[index] = slot
    for _ in range(_WIPES):
        volume.write(slot.key_offset * SECTOR, os.urandom(header.material_length))
