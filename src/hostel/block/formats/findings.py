"""What a check finds: counted, and told line by line up to a bound: a broken image has millions of wrong entries."""

from __future__ import annotations

from typing import Final

from hostel.block.powers import CheckResult, Repair, Report

_MOST_LINES: Final = 1000


class Findings:
    """The findings of one check.

    Args:
        report: who is told.
        repair: what may be repaired.

    Attributes:
        repair: what may be repaired.
        result: what is known so far.
    """

    def __init__(self, report: Report, repair: Repair = Repair.NOTHING) -> None:
        self.repair = repair
        self.result = CheckResult()
        self._report = report
        self._lines = 0

    @property
    def repairs_errors(self) -> bool:
        """Whether what is wrong may be put right."""
        return bool(self.repair & Repair.ERRORS)

    @property
    def repairs_leaks(self) -> bool:
        """Whether space that is of nobody may be given back."""
        return bool(self.repair & Repair.LEAKS)

    def say(self, line: str) -> None:
        """Tell something; once that was much, no more."""
        self._lines += 1
        if self._lines <= _MOST_LINES:
            self._report(line)
        elif self._lines == _MOST_LINES + 1:
            self._report("There is more, which is counted only")

    def corruption(self, line: str) -> None:
        """Tell that something is wrong, and count it: as repaired where that may be."""
        if self.repairs_errors:
            self.result.corruptions_fixed += 1
        else:
            self.result.corruptions += 1
        self.say(line)
