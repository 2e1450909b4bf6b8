"""Who wants to know that a disk has another size: exports, whose clients go by the size that they were told.

That some node's size may be another one is all that is told, by the thread that has changed it: formats change the
sizes of their files while they write.

>>> with listening(lambda: print("look again")):
...     tell()
look again
"""

from __future__ import annotations

from typing import Final

from hostel.block.listeners import Listeners

_LISTENERS: Final[Listeners[[]]] = Listeners()
tell = _LISTENERS.tell
listening = _LISTENERS.listening
