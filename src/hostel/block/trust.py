"""Trust: what a file's own metadata may make us touch."""

from __future__ import annotations

import enum


class Trust(enum.Enum):
    """How an image is opened.

    ``TRUSTED`` follows what the image names, as QEMU does. ``UNTRUSTED`` opens the one file and nothing else: no
    probing into raw, no backing file, no data file, no ``json:`` or protocol names.
    """

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
