"""The environment that QEMU is started with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hostel.drivers.qemu import screens
from hostel.drivers.qemu.settings import Settings
from hostel.model.domain.devices.graphics import GraphicsType
from hostel.model.domain.domain import Domain

# What of ours QEMU gets: libvirt's list (``virCommandAddEnvPassCommon``), and how a session's programs find its screen,
# its sound and its directories. The rest may be somebody's secret, and is no business of a guest's.
_PASSED: Final = (
    "PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS", "PULSE_SERVER", "PIPEWIRE_REMOTE", "DISPLAY",
    "WAYLAND_DISPLAY", "XAUTHORITY", "SANLOCK_RUN_DIR",
)  # fmt: skip

# Of those, what is about one user; and where another one's are (``virCommandAddEnvXDG``).
_PERSONAL: Final = frozenset(_PASSED) - {"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "TMPDIR"}
_PLACES: Final = {"XDG_DATA_HOME": ".local/share", "XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}


def environment(domain: Domain, settings: Settings, home: Path | None = None) -> dict[str, str]:
    """All variables that QEMU has, and nothing else; ``home`` is a directory for one that is another user than we.

    A document's own (``<qemu:env>``) come last. Of several windows the last decides on which screen they are.
    """
    found = {name: os.environ[name] for name in _PASSED if name in os.environ} | {"LC_ALL": "C"}
    if home is not None:
        found = {name: value for name, value in found.items() if name not in _PERSONAL}
        found |= {"HOME": str(home)} | {name: str(home / place) for name, place in _PLACES.items()}
    clock = domain.clock
    if clock is not None and clock.offset == "timezone" and clock.timezone is not None:
        found["TZ"] = clock.timezone
    for backend in domain.devices.audios:
        if backend.type == "sdl" and backend.driver is not None:
            found["SDL_AUDIODRIVER"] = backend.driver
    for screen in domain.devices.graphics:
        if screen.type == GraphicsType.SDL:
            given = {"DISPLAY": screen.display, "XAUTHORITY": screen.xauth}
            found |= {name: value for name, value in given.items() if value is not None}
    found |= screens.environment(domain, settings)
    own = domain.qemu_commandline.environment if domain.qemu_commandline is not None else []
    return found | {variable.name: variable.value or "" for variable in own}
