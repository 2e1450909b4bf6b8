"""virt-xml's changes, messages and exit codes against the real virt-xml 4.1."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import hostel
from hostel.cli.output import Output
from hostel.cli.virt_xml.arguments import parser
from hostel.cli.virt_xml.main import main, run
from hostel.errors import HostelError
from support import virtinst

pytestmark = pytest.mark.requires_tool("virt-xml")
TEST = "test:///default"
DATA = Path(__file__).parents[1] / "data" / "virt_xml"
MACHINE = (DATA / "machine.xml").read_text()

# Both take it; what the real one writes, what ours does, and why.
DIFFERENT = [
    (
        "--edit --disk source.host0.name=a,source.host1.name=b",
        '<host name="b"/>',
        '<host name="a"/>\n        <host name="b"/>',
    ),
]


def lines(name: str) -> list[str]:
    return [line for line in (DATA / name).read_text().splitlines() if line and not line.startswith("#")]


def real(words: list[str], given: str | None) -> tuple[int, str, str]:
    code, out, err = virtinst.run("virt-xml", ["--connect", TEST, *words], given=given, environment={"LC_ALL": "C"})
    return code, plain(out), plain(err)


def ours(words: list[str], given: str | None) -> tuple[int, str, str]:
    output = Output(io.StringIO(), io.StringIO())
    options = parser().parse_args(["--connect", TEST, *words])
    try:
        with hostel.open(TEST) as connection:
            code = run(connection, options, output, given, io.StringIO())
    except HostelError as error:
        output.err.write(f"ERROR    {error}\n")
        code = 1
    assert isinstance(output.out, io.StringIO) and isinstance(output.err, io.StringIO)
    return code, plain(output.out.getvalue()), plain(output.err.getvalue())


def plain(text: str) -> str:
    """Without what is random."""
    return re.sub(r"(00:16:3e|52:54:00)(:[0-9a-f]{2}){3}", "MAC", text).rstrip("\n")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HOME", "HOSTEL_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    yield


@pytest.mark.parametrize("command", lines("documents.txt"))
def test_a_document_is_changed_as_virt_xml_changes_it(command: str) -> None:
    words = shlex.split(command)
    assert ours(words, MACHINE) == real(words, MACHINE)


@pytest.mark.parametrize("command", lines("errors.txt"))
def test_errors_are_those_of_virt_xml(command: str) -> None:
    words = shlex.split(command)
    expected = real(words, MACHINE)
    assert expected[0] != 0
    assert ours(words, MACHINE) == expected


@pytest.mark.parametrize("command", lines("built.txt"))
def test_a_part_is_built_as_virt_xml_builds_it(command: str) -> None:
    words = shlex.split(command)
    assert ours(words, None) == real(words, None)


@pytest.mark.parametrize(
    "command",
    [
        "test --edit --print-diff --vcpus 7",
        "1 --edit --print-xml --events on_crash=preserve",
        "test --edit --vcpus 7",
        "test --edit --define --print-diff --metadata title=x",
        "test --edit --update --start --disk path=",
        "test --edit --update --events on_crash=preserve",
        "test --edit --metadata name=test",
    ],
)
def test_a_machine_is_changed_as_virt_xml_changes_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    expected, got = real(words, None), ours(words, None)
    assert got[0] == expected[0]
    assert _shown(got) == _shown(expected)


@pytest.mark.parametrize("option", ["--cpu qemu64", "--features smm.state=1", "--clock offset=localtime"])
def test_what_is_no_device_is_not_updated_in_a_machine_that_runs(option: str) -> None:
    words = shlex.split(f"test --edit {option} --update")
    expected, got = real(words, None), ours(words, None)
    assert (got[0], got[1]) == (expected[0], expected[1]) == (1, "")
    start = "ERROR    Error attempting device update: "
    assert got[2].startswith(start) and expected[2].startswith(start)


def test_what_is_defined_is_what_was_shown() -> None:
    """Elements that only stand before one of a higher number are made once, however often the document is written."""
    words = ["--connect", TEST, "test", "--edit", "--clock", "timer2.name=rtc", "--define", "--print-xml"]
    with hostel.open(TEST) as connection:
        assert (
            run(connection, parser().parse_args(words), Output(io.StringIO(), io.StringIO()), None, io.StringIO()) == 0
        )
        assert connection.domain("test").xml(inactive=True).count("<timer name='rtc'/>") == 1


@pytest.mark.parametrize(
    ("device", "path"),
    [
        ("--sound ich6,codec1.type=micro", "devices/sound"),
        ("--graphics vnc,listens1.type=address,listens1.address=1.2.3.4", "devices/graphics"),
        (
            "--disk type=network,source.protocol=nbd,source.host1.name=b,source.host1.port=9",
            "devices/disk/source[host]",
        ),
        ("--sound ich6,xpath1.create=\"./codec[@type='duplex']\"", "devices/sound"),
    ],
)
def test_a_new_device_is_defined_as_it_was_shown(device: str, path: str) -> None:
    words = ["--connect", TEST, "test", "--add-device", *device.split(), "--define", "--print-xml"]
    output = Output(io.StringIO(), io.StringIO())
    with hostel.open(TEST) as connection:
        assert run(connection, parser().parse_args(words), output, None, io.StringIO()) == 0
        defined = ElementTree.fromstring(connection.domain("test").xml(inactive=True)).findall(path)
    assert isinstance(output.out, io.StringIO)
    shown = ElementTree.fromstring(output.out.getvalue().partition("</domain>")[0] + "</domain>").findall(path)
    assert len(shown) == len(defined) == 1
    names = ("codec", "listen", "host")
    expected = [(child.tag, child.attrib) for child in shown[0] if child.tag in names]
    assert expected
    assert [(child.tag, child.attrib) for child in defined[0] if child.tag in names] == expected


def test_a_device_that_is_new_in_a_machine_that_runs_is_new_in_its_definition() -> None:
    device = "/source,/target,xpath1.create=./readonly,xpath2.set=./@accessmode,xpath2.value=squash"
    words = ["--connect", TEST, "test", "--add-device", "--filesystem", device, "--update"]
    with hostel.open(TEST) as connection:
        assert (
            run(connection, parser().parse_args(words), Output(io.StringIO(), io.StringIO()), None, io.StringIO()) == 0
        )
        for inactive in (False, True):
            found = ElementTree.fromstring(connection.domain("test").xml(inactive=inactive)).findall(
                "devices/filesystem"
            )
            assert [(each.get("accessmode"), [child.tag for child in each]) for each in found] == [
                ("squash", ["source", "target", "readonly"])
            ]


def _shown(ended: tuple[int, str, str]) -> list[str]:
    """What was said, without the lines of the machine that the two hypervisors write differently."""
    return [line for line in (ended[1] + "\n" + ended[2]).splitlines() if line[:1] in ("+", "-") or line[:1].isupper()]


@pytest.mark.parametrize(("command", "theirs", "is_ours"), DIFFERENT)
def test_a_document_differs_on_purpose(command: str, theirs: str, is_ours: str) -> None:
    words = shlex.split(command)
    expected = real(words, MACHINE)[1]
    assert theirs in expected
    assert ours(words, MACHINE)[1] == expected.replace(theirs, is_ours)


@pytest.mark.parametrize(
    ("xpath", "said"),
    [
        ("./a/@1=c", "'1' is no name of an attribute"),
        ("./@xmlns:a=b", "'xmlns:a' is no name of an attribute"),
        ("./devices/graphics/@port=5,xpath.delete=./os", "'port=5,xpath.delete' is no name of an attribute"),
        ("./name/text()=z", "it names no element or attribute"),
        ("./devices/comment()/@x=z", "it names no element or attribute"),
        ("xpath.delete=./name/text()", "it names no element or attribute"),
        ("xpath.delete=/domain", "the whole document cannot be deleted"),
        ("./@/c=d", "Invalid expression"),
    ],
)
def test_an_xpath_that_no_document_can_follow_is_refused(xpath: str, said: str) -> None:
    code, out, err = ours(["--edit", "--xml", xpath], MACHINE)
    assert (code, out) == (1, "")
    assert err.endswith(said)


def test_a_device_cannot_delete_the_document_that_it_is_in() -> None:
    code, out, err = ours(["--edit", "--disk", "xpath1.delete=/domain"], MACHINE)
    assert (code, out) == (1, "")
    assert err.endswith("the whole document cannot be deleted")


def test_an_empty_device_may_empty_the_element_that_it_is_in() -> None:
    code, out, err = ours(
        ["--edit", "--disk", "xpath1.set=..="], "<domain type='test'><devices><disk/></devices></domain>"
    )
    assert (code, err) == (0, "")
    assert "disk" not in out


def test_every_option_of_the_help_is_taken() -> None:
    theirs = set(re.findall(r"(?<![\w-])(--[a-zA-Z][\w-]*)", real(["--help"], None)[1])) - {"--print"}
    known = {flag for action in parser()._actions for flag in action.option_strings}
    assert theirs - known == {"--option"}  # the page's last line, no option


def test_what_an_option_takes_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sound=?", "--tpm=?"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == real(["--sound=?", "--tpm=?"], None)[1]
