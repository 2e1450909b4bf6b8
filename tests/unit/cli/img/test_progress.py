"""Progress lines."""

from __future__ import annotations

import io
import os
import signal

from hostel.cli.img.output import Output
from hostel.cli.img.progress import Progress


def run(step: float, *percents: float, shown: bool = True, ask_before: float | None = None) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with Progress(Output("qemu-img", out, err), shown=shown, step=step) as progress:
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
    assert run(1, 0, 50, 100, shown=False) == ("", "")


def test_a_signal_asks_for_one_line_on_standard_error() -> None:
    assert run(1, 0, 50, 100, shown=False, ask_before=50) == ("", "    (50.00/100%)\n")


def test_parts_of_nothing_are_nothing() -> None:
    out = io.StringIO()
    Progress(Output("qemu-img", out), shown=True, step=1).report(0, 0)
    assert out.getvalue() == "    (0.00/100%)\r"
