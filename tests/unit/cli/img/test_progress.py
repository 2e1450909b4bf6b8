"""Progress lines."""

from __future__ import annotations

import io
import json
import os
import signal

from hostel.cli.img.arguments import Arguments
from hostel.cli.img.progress import Progress
from hostel.cli.qemu.output import Output


def arguments(style: str | None) -> Arguments:
    return Arguments([] if style is None else [("progress", style)], [])


def run(
    step: float, *percents: float, style: str | None = "", ask_before: float | None = None, quiet: bool = False
) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGUSR1)
    try:
        output = Output("qemu-img", out, err)
        output.quiet = quiet
        with Progress(output, arguments(style), step=step) as progress:
            for percent in percents:
                if percent == ask_before:
                    os.kill(os.getpid(), signal.SIGUSR1)
                progress.percent(percent)
    finally:
        signal.signal(signal.SIGUSR1, before)
    return out.getvalue(), err.getvalue()


def test_lines_are_a_step_apart_and_the_last_ends() -> None:
    assert run(1, 0, 0.5, 1, 1.5, 50, 100)[0] == (
        "    (0.00/100%)\r    (1.50/100%)\r    (50.00/100%)\r    (100.00/100%)\r\n"
    )


def test_no_more_than_all_is_done() -> None:
    assert run(1, 120)[0] == "    (100.00/100%)\r\n"


def test_without_p_nothing_is_shown() -> None:
    assert run(1, 0, 50, 100, style=None) == ("", "")


def test_a_signal_asks_for_one_line_on_standard_error() -> None:
    assert run(1, 0, 50, 100, style=None, ask_before=50) == ("", "    (50.00/100%)\n")


def test_plain_progress_is_lines_on_standard_error() -> None:
    out, err = run(1, 0, 50, 100, 100, style="plain")
    assert (out, err) == ("", "    (0.00/100%)\n    (50.00/100%)\n    (100.00/100%)\n")


def test_json_progress_is_an_object_a_line_on_standard_error() -> None:
    out, err = run(1, 0, 33.333, 100, 100, style="json")
    found = [json.loads(line) for line in err.splitlines()]
    assert (out, [each["percent"] for each in found]) == ("", [0, 33.33, 100])
    assert all(each["elapsed"] >= 0 for each in found)


def test_quiet_hides_progress_of_any_kind() -> None:
    assert [run(1, 0, 50, 100, style=style, quiet=True) for style in ("", "plain", "json")] == [("", "")] * 3


def test_parts_of_nothing_are_nothing() -> None:
    out = io.StringIO()
    Progress(Output("qemu-img", out), arguments(""), step=1).report(0, 0)
    assert out.getvalue() == "    (0.00/100%)\r"
