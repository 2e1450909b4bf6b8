"""Which console a new machine's user is connected to."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostel
from hostel.cli.output import Output
from hostel.cli.virt_install import console
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.host import Host
from hostel.cli.virt_install.storage import Storage
from hostel.drivers.store import Directories
from hostel.errors import UsageError


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with hostel.open("test:///default", Directories.under(tmp_path)) as connection:
        yield Guest(Host(connection), Storage(connection, str(tmp_path / "images")))


def chosen(guest: Guest, wanted: str = "default") -> tuple[str, str]:
    output = Output(io.StringIO(), io.StringIO())
    found = console.choose(wanted, guest, output)
    assert found.is_default == (wanted == "default")
    assert isinstance(output.err, io.StringIO)
    return found.kind, output.err.getvalue()


def viewer(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str = "exit 0") -> Path:
    program = directory / "remote-viewer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return program


def test_a_machine_without_a_display_has_a_text_console(guest: Guest) -> None:
    assert chosen(guest) == ("text", "")


@pytest.mark.parametrize("kind", ["sdl", "rdp"])
def test_a_display_that_no_viewer_shows_has_none(guest: Guest, kind: str) -> None:
    guest.add("graphics", ("@type", kind))
    assert chosen(guest) == ("none", "")


def test_a_viewer_is_needed_for_a_display(guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    guest.add("graphics", ("@type", "vnc"))
    monkeypatch.setenv("PATH", str(tmp_path))
    kind, warning = chosen(guest)
    assert kind == "none"
    assert warning.startswith("WARNING  Unable to connect to graphical console: virt-viewer not installed.")


def test_a_screen_is_needed_for_a_viewer(guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    guest.add("graphics", ("@type", "vnc"))
    viewer(tmp_path, monkeypatch)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert chosen(guest)[0] == "none"
    monkeypatch.setenv("DISPLAY", ":0")
    assert chosen(guest) == ("graphical", "")


@pytest.mark.parametrize("wanted", ["none", "text", "graphical"])
def test_the_user_may_choose(guest: Guest, wanted: str) -> None:
    assert chosen(guest, wanted) == (wanted, "")


def test_an_unknown_console_is_refused(guest: Guest) -> None:
    with pytest.raises(UsageError, match="Unknown autoconsole type 'foo'"):
        chosen(guest, "foo")


@pytest.mark.parametrize(
    ("attributes", "address"),
    [
        ("type='vnc' port='5901' listen='0.0.0.0'", "vnc://127.0.0.1:5901"),
        ("type='vnc' port='5902' listen='::'", "vnc://[::1]:5902"),
        ("type='spice' port='5903'", "spice://127.0.0.1:5903"),
    ],
)
def test_the_viewer_is_given_the_address_of_the_display(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, attributes: str, address: str
) -> None:
    viewer(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/given; exit 3')
    domain = guest.host.connection.create_domain(
        "<domain type='test'><name>x</name><memory>1024</memory><os><type>hvm</type></os>"
        f"<devices><graphics {attributes}/></devices></domain>"
    )
    output = Output(io.StringIO(), io.StringIO())
    console.connect(console.Console("graphical", is_default=True), domain, output, wait=True)
    assert (tmp_path / "given").read_text() == f"{address}\n"
    assert isinstance(output.err, io.StringIO)
    assert output.err.getvalue() == "WARNING  Console command returned failure.\n"
