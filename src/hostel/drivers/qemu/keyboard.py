"""Key codes: Linux's, and the numbers that QEMU takes, which are those of the PC's first set of scan codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain

LINUX: Final = 0  # virKeycodeSet
XT: Final = 1
QNUM: Final = 9
_NAMES: Final = (
    "RESERVED ESC 1 2 3 4 5 6 7 8 9 0 MINUS EQUAL BACKSPACE TAB Q W E R T Y U I O P LEFTBRACE RIGHTBRACE ENTER "
    "LEFTCTRL A S D F G H J K L SEMICOLON APOSTROPHE GRAVE LEFTSHIFT BACKSLASH Z X C V B N M COMMA DOT SLASH "
    "RIGHTSHIFT KPASTERISK LEFTALT SPACE CAPSLOCK F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NUMLOCK SCROLLLOCK KP7 KP8 "
    "KP9 KPMINUS KP4 KP5 KP6 KPPLUS KP1 KP2 KP3 KP0 KPDOT"
)
# Linux's codes from 85 up that keyboards of PCs have, and their scan codes; 80h stands for the prefix E0h.
_EXTENDED: Final = {
    "102ND": (86, 0x56), "F11": (87, 0x57), "F12": (88, 0x58), "KPENTER": (96, 0x9C), "RIGHTCTRL": (97, 0x9D),
    "KPSLASH": (98, 0xB5), "SYSRQ": (99, 0x54), "RIGHTALT": (100, 0xB8), "HOME": (102, 0xC7), "UP": (103, 0xC8),
    "PAGEUP": (104, 0xC9), "LEFT": (105, 0xCB), "RIGHT": (106, 0xCD), "END": (107, 0xCF), "DOWN": (108, 0xD0),
    "PAGEDOWN": (109, 0xD1), "INSERT": (110, 0xD2), "DELETE": (111, 0xD3), "MUTE": (113, 0xA0),
    "VOLUMEDOWN": (114, 0xAE), "VOLUMEUP": (115, 0xB0), "POWER": (116, 0xDE), "PAUSE": (119, 0xC6),
    "LEFTMETA": (125, 0xDB), "RIGHTMETA": (126, 0xDC), "COMPOSE": (127, 0xDD),
}  # fmt: skip
CODES: Final = {
    **{f"KEY_{name}": code for code, name in enumerate(_NAMES.split())},
    **{f"KEY_{name}": code for name, (code, _) in _EXTENDED.items()},
}
_SCAN: Final = {
    **{code: code for code in range(1, len(_NAMES.split()))},
    **dict(_EXTENDED.values()),
}


def numbers(codeset: int, keycodes: Sequence[int]) -> list[int]:
    """The numbers that QEMU takes for keys of a set of codes.

    Raises:
        VirtError: ``OPERATION_UNSUPPORTED`` for other sets, ``INTERNAL_ERROR`` for a key that no PC has.
    """
    if codeset in (XT, QNUM):
        return list(keycodes)
    if codeset != LINUX:
        what = f"codeset {codeset} is not known; use linux, xt or qnum"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    for code in keycodes:
        if code not in _SCAN:
            what = f"cannot translate keycode {code} of linux codeset to qnum keycode"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
    return [_SCAN[code] for code in keycodes]
