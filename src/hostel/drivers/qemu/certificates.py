"""Where the certificates are that QEMU reads itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hostel.drivers.qemu.command.character import CERTIFICATES
from hostel.drivers.qemu.settings import Settings

# Where libvirt has them, for each use and for all of them.
_USES: Final = {CERTIFICATES: Path("/etc/pki/libvirt-chardev"), "nbd": Path("/etc/pki/libvirt-nbd")}
_ALL: Final = Path("/etc/pki/qemu")


def folders(settings: Settings, own: Path) -> dict[str, str]:
    """The folders by what they are for: as ``qemu.conf`` has it, the connection's, which is ``own``, or the host's."""
    found: dict[str, str] = {}
    named = {CERTIFICATES: settings.character.folder, "nbd": settings.nbd.folder}
    for use, folder in _USES.items():
        places = (Path(named[use]),) if named[use] else (own, folder, _ALL)
        place = next((path for path in places if path.is_dir()), None)
        if place is not None:
            found[use] = str(place)
    return found
