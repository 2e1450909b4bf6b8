"""What the block layer notices while it works and no error tells: an image found corrupt, one repaired by opening it.

What is told is one line without its end.

>>> with listening(print):
...     tell("qcow2: Image is corrupt: ...")
qcow2: Image is corrupt: ...
"""

from __future__ import annotations

from typing import Final

from hostel.block.listeners import Listeners

_LISTENERS: Final[Listeners[[str]]] = Listeners()
tell = _LISTENERS.tell
listening = _LISTENERS.listening
