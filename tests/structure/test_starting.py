"""What a command loads as it starts: scripts call some thousands of times, and each module costs them a millisecond.

Where one of these fails, import what it names in the function that needs it, or put it behind ``drivers.deferred``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

# Found by ``python -X importtime``: what either takes long itself, or brings many others.
_IMAGES: Final = (
    "argparse", "asyncio", "concurrent.futures", "cryptography", "dataclasses", "hashlib", "json", "lxml", "numpy",
    "subprocess", "urllib", "hostel.drivers", "hostel.export", "hostel.model", "hostel.net", "hostel.wire",
    "hostel.block.jobs", "hostel.block.formats.qcow2", "hostel.block.protocols.nbd", "hostel.errors.machine", "zlib",
)  # fmt: skip
_CREATING: Final = (
    *(name for name in _IMAGES if name != "hostel.block.formats.qcow2"), "hostel.block.formats.qcow2.columns",
    "hostel.block.formats.qcow2.compressed", "hostel.block.formats.qcow2.reference_count",
    "hostel.block.formats.qcow2.snapshot_table", "hostel.block.formats.qcow2.subcluster", "hostel.codec.compress",
)  # fmt: skip
_LISTING: Final = (
    "argparse", "asyncio", "concurrent.futures", "cryptography", "dataclasses", "numpy", "ssl",
    "urllib.request", "hostel.block.graph", "hostel.daemon", "hostel.img", "hostel.wire",
    "hostel.model.domain.defaults", "hostel.model.domain.placing", "hostel.model.domain.validate",
    "hostel.drivers.host", "hostel.drivers.link.tap", "hostel.drivers.network", "hostel.drivers.nodedev.watch",
    "hostel.drivers.nwfilter", "hostel.drivers.remote.driver", "hostel.drivers.storage.driver",
    "hostel.drivers.qemu.capabilities", "hostel.drivers.qemu.command.machine", "hostel.drivers.qemu.cpu.answers",
    "hostel.drivers.qemu.firmware", "hostel.drivers.qemu.launch", "hostel.drivers.qemu.migration.destination",
    "hostel.drivers.qemu.migration.peer", "hostel.drivers.qemu.migration.settling",
    "hostel.drivers.qemu.migration.source", "hostel.drivers.qemu.plug.inward", "hostel.drivers.qemu.plug.outward",
    "hostel.drivers.qemu.snapshot.overlay", "hostel.drivers.qemu.snapshot.settle", "hostel.drivers.qemu.watch",
    "hostel.drivers.qemu.wiring",
)  # fmt: skip
_REPORT: Final = (
    "import sys; from hostel.cli.main import main; code = main(sys.argv[1:]); "
    "print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(code)"
)


def _loaded(home: Path, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _REPORT, "hostel", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"HOSTEL_HOME": str(home), "PATH": "/usr/bin:/bin"},
    )
    return set(done.stderr.split())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was opened before: the first opening starts things."""
    home = tmp_path_factory.mktemp("home")
    (home / "disk").write_bytes(bytes(512))
    _loaded(home, "virsh", "list")
    return home


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (("qemu-img", "info", "-f", "raw", "disk"), _IMAGES),
        (("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk", "copy"), _CREATING),
        (("virsh", "list", "--all"), _LISTING),
    ],
    ids=["qemu-img-info", "qemu-img-convert", "virsh-list"],
)
def test_a_command_starts_without_what_it_does_not_need(
    home: Path, words: tuple[str, ...], heavy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert sorted(_loaded(home, *words) & set(heavy)) == []


def test_each_heavy_module_is_there() -> None:
    import importlib.util

    assert [name for name in (*_IMAGES, *_CREATING, *_LISTING) if importlib.util.find_spec(name) is None] == []
