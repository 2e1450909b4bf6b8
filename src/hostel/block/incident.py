"""What happens in a node that its machine's owner should hear of, though a request may have succeeded.

Whoever runs nodes for others listens, and sends QEMU's event of the same name. What is told are the event's name and
its members, in the thread whose request it happens in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hostel.block.listeners import Listeners

_LISTENERS: Final[Listeners[[str, Mapping[str, Any]]]] = Listeners()
tell = _LISTENERS.tell
listening = _LISTENERS.listening
