"""What the tour prints: set-in output, commands that a shell reads, and what becomes of failures."""

from __future__ import annotations

import io
import os
import shlex

import pytest

from hostel.cli.quickstart.narrator import Indented, Narrator, StepFailed, broken
from hostel.cli.quickstart.tour import tree


def printed(*texts: str, finish: str = "") -> str:
    stream = io.StringIO()
    indented = Indented(stream)
    for text in texts:
        indented.write(text)
    indented.finish(finish)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("one\n",), "    one  [t]\n"),
        (("one", " and more\n\n"), "    one and more  [t]\n"),
        (("\none\n\ntwo\n",), "    one\n    two\n    [t]\n"),
        ((), "    [t]\n"),
        (("\n",), "    [t]\n"),
        (("(1%)\r", "(2%)\r", "\n"), "    (1%)\r    (2%)  [t]\n"),
    ],
)
def test_output_is_set_in_and_the_time_added(texts: tuple[str, ...], expected: str) -> None:
    assert printed(*texts, finish="[t]") == expected


def test_lines_of_two_streams_do_not_run_into_each_other() -> None:
    terminal = io.StringIO()
    out, err = Indented(terminal), Indented(terminal)
    out.peer, err.peer = err, out
    for stream, text in ((out, "Creating... "), (err, "WARNING\n"), (out, "done\n"), (err, "late")):
        stream.write(text)
    err.finish()
    out.finish()
    assert terminal.getvalue() == "    Creating... \n    WARNING\n    done\n    late\n"


def test_long_command_is_broken_at_options_into_what_a_shell_joins_again() -> None:
    words = ["virt-install", *(f"--option{index}=value {index}" for index in range(12))]
    lines = broken(words)
    assert len(lines) > 1
    assert all(len(line) <= 102 for line in lines)
    joined = "\n".join(lines).removeprefix("  $ ").replace("\\\n", "")
    assert shlex.split(joined) == ["hostel", *words]
    assert broken(["virsh", "list"]) == ["  $ hostel virsh list"]


def test_command_that_fails_ends_the_tour_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    say = Narrator(1)
    say.run("virsh", "-v")
    with pytest.raises(StepFailed, match="'hostel virsh' ended with exit code 1"):
        say.run("virsh", "no-such-command")
    shown = capsys.readouterr()
    assert shown.out.startswith("  $ hostel virsh -v\n    9.0.0  [")
    assert "    error: unknown command: 'no-such-command'" in shown.err


def test_answer_of_a_command_is_returned_and_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert Narrator(1).answer("virsh", "-v") == "9.0.0\n"
    assert "9.0.0" not in capsys.readouterr().out


def test_waiting_has_an_end() -> None:
    with pytest.raises(StepFailed, match="the guest speaks: not after 0 s"):
        Narrator(1).wait("the guest speaks", lambda: False, 0.01)


def test_chain_is_drawn_as_a_tree_with_sizes() -> None:
    layers = [
        {"filename": name, "format": "qcow2", "virtual-size": 1 << 26, "actual-size": size << 10}
        for name, size in (("top", 200), ("middle", 264), ("base", 8))
    ]
    assert tree(layers) == [
        "top           qcow2, 64 MiB, 200 KiB on the host",
        "└── middle    qcow2, 64 MiB, 264 KiB on the host",
        "    └── base  qcow2, 64 MiB, 8 KiB on the host",
    ]


def test_tour_ends_where_nobody_reads_on_though_a_tool_passes_that_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with io.TextIOWrapper(io.FileIO(theirs, "w"), write_through=True) as stream:
        monkeypatch.setattr("sys.stdout", stream)
        say = Narrator(1)
        monkeypatch.setattr(say, "line", lambda text: None)
        with pytest.raises(BrokenPipeError):
            say.run("qemu-img", "--version")
