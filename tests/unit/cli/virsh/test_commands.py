"""virsh's commands where no other virsh is asked: their own additions, and files that come and go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import hostel
from hostel.cli.output import format_table
from hostel.cli.virsh.aliases import ALIASES
from hostel.cli.virsh.main import main, open_uri
from hostel.cli.virsh.registry import COMMANDS, GROUPS, commands_of, find
from hostel.cli.virsh.session import Connection
from hostel.drivers.base import DomainRef
from hostel.drivers.store import Directories
from hostel.drivers.test.hypervisor import TestDriver
from hostel.errors import UsageError
from hostel.units import MiB
from support.virsh import run_lines


class Virsh:
    """Our virsh on a URI, line by line."""

    def __init__(self, uri: str, directories: Directories) -> None:
        self._uri = uri
        self._directories = directories
        self.out = self.err = ""

    def __call__(self, line: str) -> int:
        ((code, self.out, self.err),) = run_lines(self._uri, self._open, [[line]])
        return code

    def _open(self, uri: str, *, read_only: bool) -> Connection:
        return hostel.open(uri, self._directories, read_only=read_only)


@pytest.fixture
def virsh(tmp_path: Path) -> Virsh:
    found = Virsh("qemu:///session", Directories.under(tmp_path / "home"))
    assert found(f"pool-create-as p dir --target {tmp_path}/pool --build") == 0
    return found


@pytest.fixture
def test_virsh(tmp_path: Path) -> Virsh:
    return Virsh("test:///default", Directories.under(tmp_path / "home"))


def test_every_command_is_in_the_module_that_the_registry_says() -> None:
    for group in GROUPS:
        assert [command.name for command in commands_of(group)] == group.names.split()
    assert len(COMMANDS) == len(set(COMMANDS))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page_that_explains_every_option(name: str, test_virsh: Virsh) -> None:
    assert test_virsh(f"help {name}") == 0
    assert test_virsh.out.startswith(f"  NAME\n    {name} - ")
    for option in find(name).options:
        assert option.help, option.name


def test_help_lists_the_commands_of_a_group(test_virsh: Virsh) -> None:
    assert test_virsh("help volume") == 0
    assert test_virsh.out.startswith(" Storage Volume (help keyword 'volume'):\n    vol-clone ")
    assert "pool-list" not in test_virsh.out


def test_what_is_not_there_is_refused_by_name(test_virsh: Virsh) -> None:
    assert test_virsh("list --nosuch") == 1
    assert test_virsh.err.startswith("error: command '")
    assert test_virsh.err.count("\n") == 1


def test_domain_that_starts_again_while_it_is_looked_up_has_numbers(
    test_virsh: Virsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = TestDriver.domain_lookup_by_name

    def restart(driver: TestDriver, name: str) -> DomainRef:
        ref = look_up(driver, name)
        driver.domain_destroy(ref)
        return driver.domain_create(ref)

    monkeypatch.setattr(TestDriver, "domain_lookup_by_name", restart)
    for options in ("", "--list-active", "--list-running --list-persistent"):
        assert test_virsh(f"domstats test --state {options}") == 0
        assert test_virsh.out.startswith("Domain: 'test'\n  state.state=1\n")
    assert test_virsh("domstats test --list-inactive") == 0
    assert test_virsh.out.strip() == ""


def test_test_domains_can_be_started_paused_which_libvirts_cannot(test_virsh: Virsh) -> None:
    assert test_virsh("destroy test; start test --paused; domstate test --reason") == 0
    assert test_virsh.out.endswith("paused (user)\n\n")


def test_files_are_passed_by_their_numbers(test_virsh: Virsh) -> None:
    assert test_virsh("destroy test; start test --pass-fds 0,x") == 1
    assert test_virsh.err.endswith("error: Unable to parse FD number 'x'\n")
    assert test_virsh("destroy test; start test --pass-fds 0,1; domstate test") == 0
    assert "running" in test_virsh.out


def test_test_domains_are_shut_down_in_no_special_way(test_virsh: Virsh) -> None:
    assert test_virsh("shutdown test --mode acpi,agent; domstate test") == 0
    assert "unsupported flags (0x3) in function testDomainShutdownFlags" in test_virsh.err
    assert "running" in test_virsh.out
    assert test_virsh("shutdown test; domstate test") == 0
    assert "shut off" in test_virsh.out


def test_upload_and_download_are_the_same_bytes(virsh: Virsh, tmp_path: Path) -> None:
    data = os.urandom(3 * MiB + 1)
    (tmp_path / "in").write_bytes(data)
    assert virsh("vol-create-as p v 4M") == 0
    assert virsh(f"vol-upload v {tmp_path}/in p --offset 100") == 0
    assert virsh(f"vol-download v {tmp_path}/out p --offset 100 --length {len(data)}") == 0
    assert (tmp_path / "out").read_bytes() == data


def test_sparse_transfers_keep_holes(virsh: Virsh, tmp_path: Path) -> None:
    with (tmp_path / "in").open("wb") as stream:
        stream.truncate(64 * MiB)
        stream.seek(32 * MiB)
        stream.write(b"middle")
    assert virsh("vol-create-as p v 1") == 0
    assert virsh(f"vol-upload v {tmp_path}/in p --sparse") == 0
    assert virsh(f"vol-download v {tmp_path}/out p --sparse") == 0
    status = (tmp_path / "out").stat()
    assert (status.st_size, status.st_blocks * 512 < MiB) == (64 * MiB, True)
    with (tmp_path / "out").open("rb") as stream:
        stream.seek(32 * MiB)
        assert stream.read(6) == b"middle"


def test_a_pipe_can_be_uploaded(virsh: Virsh, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = os.fork()
    if child == 0:
        fifo.write_bytes(b"x" * 100_000)
        os._exit(0)
    assert virsh("vol-create-as p v 1") == 0
    assert virsh(f"vol-upload v {fifo} p --sparse") == 0
    os.waitpid(child, 0)
    assert virsh("vol-info v p --bytes --physical") == 0
    assert "Physical:       100000 bytes" in virsh.out


def test_a_download_that_fails_leaves_no_file_of_its_own(virsh: Virsh, tmp_path: Path) -> None:
    assert virsh("vol-create-as p v 1M --format dir") == 0
    (tmp_path / "kept").write_text("old")
    assert virsh(f"vol-download v {tmp_path}/new p") == 1
    assert virsh.err.startswith("error: cannot receive data from volume v\n")
    assert not (tmp_path / "new").exists()
    assert virsh(f"vol-download nosuch {tmp_path}/kept p") == 1
    assert (tmp_path / "kept").read_text() == "old"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("vol-upload v /nosuch p", "error: cannot read /nosuch\nerror: /nosuch: No such file or directory\n"),
        (
            "vol-download v /nosuch/x p",
            "error: cannot create /nosuch/x\nerror: /nosuch/x: No such file or directory\n",
        ),
    ],
)
def test_a_file_that_cannot_be_opened_is_named_with_the_reason(virsh: Virsh, line: str, message: str) -> None:
    assert virsh("vol-create-as p v 1") == 0
    assert virsh(line) == 1
    assert virsh.err == message


@pytest.mark.parametrize("option", ["--validate"])
def test_documents_are_read_whole_or_refused(virsh: Virsh, tmp_path: Path, option: str) -> None:
    (tmp_path / "latin").write_bytes(b"<pool>\xe9</pool>")
    (tmp_path / "large").write_bytes(b" " * (10 * MiB + 1))
    assert virsh(f"pool-define {tmp_path}/latin") == 1
    assert virsh.err == f"error: Failed to read file '{tmp_path}/latin': byte 6 is not UTF-8\n"
    assert virsh(f"pool-define {tmp_path}/large") == 1
    assert "Value too large" in virsh.err
    assert virsh(f"vol-create p x {option}") == 1


def test_names_cannot_forge_a_table() -> None:
    table = format_table(["Name"], [["a\n\x1b[2Jb"], ["\udc80"]])
    assert table == " Name\n----------------\n a\\x0a\\x1b[2Jb\n \\x80\n"


def test_an_argument_that_is_not_utf8_is_an_error_of_one_line(virsh: Virsh) -> None:
    for line in (
        "pool-info \udc80",
        "vol-info \udc80 p",
        "vol-create-as p \udc80 1",
        "net-info \udc80",
        "dominfo \udc80",
    ):
        assert virsh(line) == 1
        assert "internal error: Unicode" not in virsh.err
        assert virsh.err.count("error: ") <= 2


def test_the_environment_names_the_hypervisor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    assert main(["uri"]) == 0
    assert capsys.readouterr().out == "test:///default\n\n"
    monkeypatch.setenv("VIRSH_DEFAULT_CONNECT_URI", "nosuch:///")
    assert main(["uri"]) == 1
    assert "failed to connect to the hypervisor" in capsys.readouterr().err
    assert main(["-c", "test:///default", "uri"]) == 0


def test_opening_by_the_command_line_is_opening_by_the_api() -> None:
    with open_uri("test:///default", read_only=True) as connection:  # type: ignore[attr-defined]
        assert connection.is_read_only


def test_an_unknown_command_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^unknown command: 'nosuch'$"):
        find("nosuch")


@pytest.mark.parametrize("name", ALIASES)
def test_other_names_of_options_are_those_of_options_that_there_are(name: str) -> None:
    options = {option.name for option in find(name).options}
    for alias, meant in ALIASES[name].items():
        assert alias not in options
        assert meant.partition("=")[0] in options
