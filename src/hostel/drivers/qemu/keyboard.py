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
    # Those of other countries, and for media and programs.
    "ZENKAKUHANKAKU": (85, 0x76), "RO": (89, 0x73), "KATAKANA": (90, 0x78), "HIRAGANA": (91, 0x77),
    "HENKAN": (92, 0x79), "KATAKANAHIRAGANA": (93, 0x70), "MUHENKAN": (94, 0x7B), "KPJPCOMMA": (95, 0x5C),
    "LINEFEED": (101, 0x5B), "MACRO": (112, 0xEF), "KPEQUAL": (117, 0x59), "KPPLUSMINUS": (118, 0xCE),
    "SCALE": (120, 0x8B), "KPCOMMA": (121, 0x7E), "HANGEUL": (122, 0x72), "HANJA": (123, 0x71), "YEN": (124, 0x7D),
    "STOP": (128, 0xE8), "AGAIN": (129, 0x85), "PROPS": (130, 0x86), "UNDO": (131, 0x87), "FRONT": (132, 0x8C),
    "COPY": (133, 0xF8), "OPEN": (134, 0x64), "PASTE": (135, 0x65), "FIND": (136, 0xC1), "CUT": (137, 0xBC),
    "HELP": (138, 0xF5), "MENU": (139, 0x9E), "CALC": (140, 0xA1), "SETUP": (141, 0x66), "SLEEP": (142, 0xDF),
    "WAKEUP": (143, 0xE3), "FILE": (144, 0x67), "SENDFILE": (145, 0x68), "DELETEFILE": (146, 0x69), "XFER": (147, 0x93),
    "PROG1": (148, 0x9F), "PROG2": (149, 0x97), "WWW": (150, 0x82), "MSDOS": (151, 0x6A), "SCREENLOCK": (152, 0x92),
    "DIRECTION": (153, 0x6B), "CYCLEWINDOWS": (154, 0xA6), "MAIL": (155, 0xEC), "BOOKMARKS": (156, 0xE6),
    "COMPUTER": (157, 0xEB), "BACK": (158, 0xEA), "FORWARD": (159, 0xE9), "CLOSECD": (160, 0xA3),
    "EJECTCD": (161, 0x6C), "EJECTCLOSECD": (162, 0xFD), "NEXTSONG": (163, 0x99), "PLAYPAUSE": (164, 0xA2),
    "PREVIOUSSONG": (165, 0x90), "STOPCD": (166, 0xA4), "RECORD": (167, 0xB1), "REWIND": (168, 0x98),
    "PHONE": (169, 0x63), "CONFIG": (171, 0x81), "HOMEPAGE": (172, 0xB2), "REFRESH": (173, 0xE7), "EDIT": (176, 0x88),
    "SCROLLUP": (177, 0x75), "SCROLLDOWN": (178, 0x8F), "KPLEFTPAREN": (179, 0xF6), "KPRIGHTPAREN": (180, 0xFB),
    "NEW": (181, 0x89), "REDO": (182, 0x8A), "F13": (183, 0x5D), "F14": (184, 0x5E), "F15": (185, 0x5F),
    "F16": (186, 0x55), "F17": (187, 0x83), "F18": (188, 0xF7), "F19": (189, 0x84), "F20": (190, 0x5A),
    "F21": (191, 0x74), "F22": (192, 0xF9), "F23": (193, 0x6D), "F24": (194, 0x6F), "PLAYCD": (200, 0xA8),
    "PAUSECD": (201, 0xA9), "PROG3": (202, 0xAB), "PROG4": (203, 0xAC), "DASHBOARD": (204, 0xAD),
    "SUSPEND": (205, 0xA5), "CLOSE": (206, 0xAF), "PLAY": (207, 0xB3), "FASTFORWARD": (208, 0xB4),
    "BASSBOOST": (209, 0xB6), "PRINT": (210, 0xB9), "HP": (211, 0xBA), "CAMERA": (212, 0xBB), "SOUND": (213, 0xBD),
    "QUESTION": (214, 0xBE), "EMAIL": (215, 0xBF), "CHAT": (216, 0xC0), "SEARCH": (217, 0xE5), "CONNECT": (218, 0xC2),
    "FINANCE": (219, 0xC3), "SPORT": (220, 0xC4), "SHOP": (221, 0xC5), "ALTERASE": (222, 0x94), "CANCEL": (223, 0xCA),
    "BRIGHTNESSDOWN": (224, 0xCC), "BRIGHTNESSUP": (225, 0xD4), "MEDIA": (226, 0xED), "SWITCHVIDEOMODE": (227, 0xD6),
    "KBDILLUMTOGGLE": (228, 0xD7), "KBDILLUMDOWN": (229, 0xD8), "KBDILLUMUP": (230, 0xD9), "SEND": (231, 0xDA),
    "REPLY": (232, 0xE4), "FORWARDMAIL": (233, 0x8E), "SAVE": (234, 0xD5), "DOCUMENTS": (235, 0xF0),
    "BATTERY": (236, 0xF1), "BLUETOOTH": (237, 0xF2), "WLAN": (238, 0xF3), "UWB": (239, 0xF4),
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
