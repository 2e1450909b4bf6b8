"""What ``hostel inspect`` says of encryption: what is needed to read the data, and whether trying is costly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hostel.block.driver import FormatInfo
from hostel.errors import BlockError
from hostel.img.inspection import Level, Look

_MANY_ITERATIONS: Final = 100_000_000  # some minutes on today's machines; cryptsetup's 2 seconds are some millions


def look_at_encryption(look: Look, info: FormatInfo) -> None:
    """Say what the LUKS header of an image, or in an image, tells; nothing where there is none."""
    details = info.specific or {}
    details = details.get("encrypt", details)
    if "slots" in details:
        _look_at_luks(look, details)


def look_at_detached_header(look: Look) -> bool:
    """Say what is known of a header whose data is in another file; whether the file is one."""
    from hostel.block.crypto.header import HEADER_LENGTH, FixedHeader, LuksHeader

    data = look.read(0, HEADER_LENGTH)
    if len(data) < HEADER_LENGTH or FixedHeader.unpack(data).payload_offset:
        return False
    try:
        header = LuksHeader.parse(data, detached=True)
    except BlockError:
        return False  # the driver tells what is wrong
    look.encrypted = True
    look_at_encryption(look, FormatInfo(encrypted=True, specific=header.describe()))
    look.add(
        Level.UNSAFE,
        "detached-header",
        "The file is the header of an encrypted disk whose data is in another file, and does not say in which",
    )
    return True


def _look_at_luks(look: Look, details: Mapping[str, Any]) -> None:
    look.findings = [each for each in look.findings if each.code != "encrypted"]
    scheme = f"{details['cipher-alg']}-{details['cipher-mode']}-{details['ivgen-alg']}"
    active = [index for index, slot in enumerate(details["slots"]) if slot["active"]]
    if not active:
        look.add(
            Level.WARNING, "no-key", "The data is encrypted, and no key slot is active: nobody can read it any more"
        )
        return
    slots = f"slot {active[0]}" if len(active) == 1 else f"slots {', '.join(map(str, active))}"
    look.add(
        Level.WARNING,
        "encrypted",
        f"The data is encrypted (LUKS, {scheme}), so nothing can be said of it; a passphrase of key {slots} opens it",
    )
    most = max([details["slots"][index]["iters"] for index in active] + [details["master-key-iters"]])
    if most > _MANY_ITERATIONS:
        look.add(
            Level.UNSAFE,
            "costly-key",
            f"To try one passphrase takes {most} iterations: whoever opens the image is kept busy for minutes or hours",
        )
