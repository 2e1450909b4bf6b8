"""What may follow what somebody has written so far, on a connection of the test driver's."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.cli.options import Kind
from hostel.cli.output import Output
from hostel.cli.virsh.completion.machine import PARTS
from hostel.cli.virsh.completion.objects import OBJECTS
from hostel.cli.virsh.completion.offer import offers
from hostel.cli.virsh.completion.partial import understand
from hostel.cli.virsh.completion.table import kind_of
from hostel.cli.virsh.completion.words import WORDS
from hostel.cli.virsh.interactive import completions
from hostel.cli.virsh.main import open_uri
from hostel.cli.virsh.registry import COMMANDS, find
from hostel.cli.virsh.session import Session


@pytest.fixture
def session() -> Iterator[Session]:
    opened = Session(Output(io.StringIO(), io.StringIO()), "test:///default", open_uri)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("line", "command", "given", "completing"),
    [
        ("", None, [], None),
        ("nosuch te", None, [], None),
        ("domi", None, [], None),
        ("dominfo te", "dominfo", ["domain"], "domain"),
        ("dominfo te ", "dominfo", ["domain"], None),
        ("dominfo --domain ", "dominfo", ["domain"], "domain"),
        ("dominfo --domain  ", "dominfo", ["domain"], None),
        ("dominfo --domain=te", "dominfo", ["domain"], "domain"),
        ("dominfo te --nosuch x", "dominfo", ["domain"], None),
        ("list --all", "list", ["all"], "all"),
        ("list --all; dominfo 'te", "dominfo", ["domain"], "domain"),
        ("attach-disk vm -- --so", "attach-disk", ["domain", "source"], "source"),
        ("echo a b", "echo", ["string"], "string"),
        ("dominfo a b", "dominfo", ["domain"], None),
        ("list\\", "list", [], None),
    ],
)
def test_unfinished_line_is_understood_up_to_its_end(
    line: str, command: str | None, given: list[str], completing: str | None
) -> None:
    found = understand(line)
    assert (found.command and found.command.name) == command
    assert [
        option.name for option in (found.command.options if found.command else ()) if found.args.has(option.name)
    ] == given
    assert (found.completing and found.completing.name) == completing


def test_every_kind_of_value_can_be_listed_and_is_one_of_an_option() -> None:
    used = {
        kind for name in COMMANDS for option in find(name).options
        if option.kind is not Kind.FLAG and (kind := kind_of(name, option.name)) is not None
    }  # fmt: skip
    assert used == {*WORDS, *OBJECTS, *PARTS}


def test_values_of_a_list_are_offered_once(session: Session) -> None:
    assert offers(session, "shutdown test --mode acpi,agent,", "acpi,agent,") == [
        "acpi,agent,initctl", "acpi,agent,signal", "acpi,agent,paravirt",
    ]  # fmt: skip


def test_nothing_is_offered_of_what_is_not_there(session: Session) -> None:
    assert offers(session, "domifstat nosuch te", "te") == []
    assert offers(session, "domifstat --interface te", "te") == []


def test_interface_is_offered_the_state_that_it_has_not(session: Session) -> None:
    assert offers(session, "domif-setlink test testnet0 ", "") == ["--state", "--config", "--print-xml"]
    assert offers(session, "domif-setlink test testnet0 d", "d") == ["down"]


@pytest.mark.parametrize(
    ("line", "text", "found"),
    [
        ("dominf", "dominf", ["dominfo "]),
        ("dominfo te", "te", ["test "]),
        ("dominfo --domain=te", "te", ["test "]),
        ("dominfo 'te", "'te", ["'test' "]),
        ('list; dominfo "', '"', ['"test" ']),
        ("list --al", "--al", ["--all "]),
        ("list --nosuch", "--nosuch", []),
    ],
)
def test_shell_offers_what_goes_on_the_line(session: Session, line: str, text: str, found: list[str]) -> None:
    assert completions(session, line, text) == found


def test_shell_offers_files_where_nothing_else_is_known(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a guest.xml", "another.xml", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "disk.img").touch()
    assert completions(session, "define an", "an") == ["another.xml "]
    assert completions(session, "define a\\ g", "g") == ["guest.xml "]
    assert completions(session, "define pl", "pl") == ["place/"]
    assert completions(session, "define place/", "place/") == ["place/disk.img "]
    assert completions(session, "cd ", "") == ["--dir "]
