"""The commands of virsh 9.0 that are not here yet: they are refused by name, not as unknown."""

from __future__ import annotations

from typing import Final

_TEXT: Final = """
dom-fd-associate

"""
NAMES: Final = frozenset(_TEXT.split())
