"""Gets virt-manager's tests: from Debian's source package, into .cache/virt-install-data."""

from __future__ import annotations

import shutil
from pathlib import Path

from libvirt_data.source import ROOT, fetch_package, run

CACHE = ROOT / ".cache" / "virt-install-data"
VERSION = "4.1.0"


def tree() -> Path:
    """The source of virt-manager, unpacked when it is first wanted."""
    folder = CACHE / VERSION
    target = folder / "virt-manager"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        target.mkdir(parents=True)
        fetch_package("virt-manager", VERSION, folder)
        (original,) = folder.glob("virt-manager_*.orig.tar.*")
        run("tar", "-xf", str(original), "-C", str(target), "--strip-components=1")
        (folder / "ready").touch()
    return target
