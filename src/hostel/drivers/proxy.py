"""What stands for a driver and passes calls on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Proxy(ABC):
    """Passes on what it has not itself, and is of its driver's class for ``isinstance``.

    From Python 3.12 on, whether an object keeps a protocol is looked up in its class, and not by what ``__getattr__``
    finds.
    """

    @abstractmethod
    def _behind(self) -> object:
        """The driver that it stands for."""

    @property  # type: ignore[misc]  # which may be set, for object
    def __class__(self) -> type[Any]:
        return self._behind().__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind(), name)
