"""What QEMU is asked, and how often."""

from __future__ import annotations

from pathlib import Path

from hostel.drivers.qemu import probe

SCRIPT = """#!/bin/sh
echo asked >> {log}
echo 'Supported machines are:'
echo 'pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-8.1)'
echo 'pc-i440fx-8.1        Standard PC (i440FX + PIIX, 1996) (default)'
echo 'q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-8.1)'
"""


def emulator(directory: Path) -> Path:
    path = directory / "qemu"
    path.write_text(SCRIPT.format(log=directory / "log"))
    path.chmod(0o755)
    return path


def test_machine_types_are_asked_for_once_per_qemu(tmp_path: Path) -> None:
    path, cache = emulator(tmp_path), tmp_path / "cache"
    for _ in range(3):
        assert probe.machine_aliases(str(path), cache) == {"pc": "pc-i440fx-8.1", "q35": "pc-q35-8.1"}
    assert (tmp_path / "log").read_text() == "asked\n"
    path.write_text(path.read_text().replace("8.1", "9.0") + "# another size\n")
    assert probe.machine_aliases(str(path), cache)["pc"] == "pc-i440fx-9.0"


def test_a_process_asks_once_whatever_directory_it_keeps_answers_in(tmp_path: Path) -> None:
    path = emulator(tmp_path)
    for name in ("one", "other"):
        assert probe.machine_aliases(str(path), tmp_path / name) == {"pc": "pc-i440fx-8.1", "q35": "pc-q35-8.1"}
    assert (tmp_path / "log").read_text() == "asked\n"


def test_qemu_that_does_not_run_has_no_aliases(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("not a program")
    assert probe.machine_aliases(str(tmp_path / "qemu"), tmp_path / "cache") == {}
    assert probe.machine_aliases(str(tmp_path / "none"), tmp_path / "cache") == {}
