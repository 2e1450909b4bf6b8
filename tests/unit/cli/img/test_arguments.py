"""Options as getopt reads them."""

from __future__ import annotations

import pytest

from hostel.cli.img.arguments import OPTIONS, OUTPUT, PROGRESS, QUIET, Arguments, Command, asks_for_help, parse, size
from hostel.cli.qemu.failure import Failure, HelpAsked
from hostel.cli.qemu.flag import Flag
from hostel.errors import UsageError

FORMAT = Flag("format", "f", "format", "fmt")
FORCE = Flag("force", "", "force")
COMMAND = Command("verb", (FORMAT, FORCE, OPTIONS, OUTPUT, PROGRESS, QUIET), "filename")


def read(*words: str) -> Arguments:
    return COMMAND.parse(words)


@pytest.mark.parametrize(
    "words",
    [
        ("-f", "raw", "a"),
        ("-fraw", "a"),
        ("a", "-f", "raw"),
        ("--format", "raw", "a"),
        ("--format=raw", "a"),
        ("--form", "raw", "a"),
        ("-f", "qcow2", "a", "-f", "raw"),
    ],
)
def test_a_value_follows_its_option(words: tuple[str, ...]) -> None:
    arguments = read(*words)
    assert arguments.get("format") == "raw"
    assert arguments.one_image() == "a"


def test_short_options_are_bundled() -> None:
    arguments = read("-pqfraw", "a")
    assert (arguments.has("progress"), arguments.has("quiet"), arguments.get("format")) == (True, True, "raw")


def test_a_value_may_look_like_an_option() -> None:
    assert read("-f", "-q", "a").get("format") == "-q"


def test_after_two_dashes_everything_is_an_operand() -> None:
    assert read("-q", "--", "-f", "--", "b").operands == ("-f", "--", "b")


def test_a_single_dash_is_an_operand() -> None:
    assert read("-").operands == ("-",)


def test_the_first_operand_ends_the_options_of_the_tool_itself() -> None:
    assert parse((FORMAT,), ["-f", "a", "info", "-f", "b"], permute=False) == ([("format", "a")], ["info", "-f", "b"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-x",), "unrecognized option '-x'"),
        (("--xyz",), "unrecognized option '--xyz'"),
        (("--fo",), "unrecognized option '--fo'"),  # format or force
        (("--force=1",), "unrecognized option '--force=1'"),
        (("-f",), "missing argument for option '-f'"),
        (("-qf",), "missing argument for option '-qf'"),
        (("--format",), "missing argument for option '--format'"),
    ],
)
def test_misuse_is_named(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert str(caught.value) == message


def test_help_is_answered_before_later_mistakes() -> None:
    with pytest.raises(HelpAsked):
        read("-qh", "-x")


def test_repeated_options_are_one_list() -> None:
    assert read("-o", "a=1", "-ob=2").options() == "a=1,b=2"
    assert read().options() is None


@pytest.mark.parametrize("text", ["", ",a", "a,", "a,,,"])
def test_an_option_list_that_cannot_be_joined_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="Invalid option list"):
        read("-o", text)


@pytest.mark.parametrize(("text", "asks"), [("help", True), ("?", True), ("a=1,help", True), ("a=help", False)])
def test_help_is_found_among_options(text: str, asks: bool) -> None:
    assert asks_for_help(text) is asks


@pytest.mark.parametrize("words", [(), ("a", "b")])
def test_one_image_is_wanted(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="Expecting one image file name"):
        read(*words).one_image()


def test_output_is_human_or_json() -> None:
    assert [read().wants_json(), read("--output=human").wants_json(), read("--out=json").wants_json()] == [
        False,
        False,
        True,
    ]
    with pytest.raises(Failure, match="--output must be used with human or json"):
        read("--output=xml").wants_json()


def test_sizes_are_limited() -> None:
    assert size("bs", "2k", minimum=1) == 2048
    with pytest.raises(Failure, match=r"^Invalid bs specified. Must be between 1 and 4096.$"):
        size("bs", "0", minimum=1, maximum=4096)
    with pytest.raises(Failure, match="You may use k, M, G, T, P or E suffixes"):
        size("bs", "x")


def test_the_synopsis_shows_every_option() -> None:
    assert COMMAND.synopsis() == "verb [-f fmt] [--force] [-o options] [--output=ofmt] [-p] [-q] filename"
