"""Why a connection is over."""

from __future__ import annotations

import enum


class CloseReason(enum.IntEnum):
    """How a connection to a daemon ended (``virConnectCloseReason``)."""

    ERROR = 0
    EOF = 1
    KEEPALIVE = 2
    CLIENT = 3
