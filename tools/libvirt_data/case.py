"""What a case of libvirt's test data is, and the tree of files it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libvirt_data.macros import Call, Macros


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        suite: the suite it belongs to.
        name: its name, unique in the suite.
        input: the document.
        expect: the file that has what must come out; none where the document must be refused, or only be taken.
        must_fail: whether the document must be refused.
        extra: what else libvirt's test is told: flags, other files, the moment.
    """

    suite: str
    name: str
    input: Path
    expect: Path | None = None
    must_fail: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The document."""
        return self.input.read_text()

    @property
    def is_plain(self) -> bool:
        """Whether what must come out is what went in."""
        return self.expect is not None and self.expect.is_file() and self.expected() == self.text()

    def expected(self) -> str:
        """What must come out, with lines that a backslash wraps put together, as libvirt's tests read it."""
        assert self.expect is not None
        return self.expect.read_text().replace("\\\n", "")


class Tree:
    """The folder ``tests`` of libvirt's source.

    Attributes:
        root: where it is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._macros: dict[str, Macros] = {}

    def path(self, relative: str) -> Path:
        """A file of the tree."""
        return self.root / relative

    def exists(self, relative: str) -> bool:
        """Whether there is such a file."""
        return self.path(relative).exists()

    def source(self, program: str) -> Macros:
        """A test program, such as ``networkxml2xmltest``, as what it calls."""
        if program not in self._macros:
            self._macros[program] = Macros(self.path(f"{program}.c").read_text())
        return self._macros[program]

    def calls(self, program: str, *names: str) -> Iterator[Call]:
        """The calls of some macros in a test program, in order."""
        yield from self.source(program).calls(*names)


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        name: libvirt's name of it.
        cases: lists its cases.
        run: makes of a case what must be equal to ``expected()``; a :class:`~hostel.errors.HostelError` is a refusal.
        equal: decides whether what we made is what was expected; byte for byte unless said otherwise.
    """

    name: str
    cases: Callable[[Tree], Iterator[Case]]
    run: Callable[[Case], str]
    equal: Callable[[str, str], bool] = lambda ours, theirs: with_newline(ours, theirs) == theirs


def with_newline(ours: str, theirs: str) -> str:
    """Add the line end that libvirt's comparison overlooks."""
    return f"{ours}\n" if theirs.endswith("\n") and not ours.endswith("\n") else ours


def same(suite: str, program: str, folder: str) -> Callable[[Tree], Iterator[Case]]:
    """List cases whose documents must come out as they went in."""

    def cases(tree: Tree) -> Iterator[Case]:
        for call in tree.calls(program, "DO_TEST"):
            path = tree.path(f"{folder}/{call.words[0]}.xml")
            yield Case(suite, call.words[0], path, path)

    return cases
