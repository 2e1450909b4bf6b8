"""Reading options as GNU ``getopt_long`` does, with the messages that it prints itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hostel.cli.qemu.flag import Flag
from hostel.errors import UsageError


class GetOpt:
    """One command line.

    Iterating gives each option with its value when its turn comes; then :attr:`operands` has what is no option.

    Args:
        flags: the options there are, in the order in which abbreviations list them.
        words: what was given.
        operand: given, operands come in their turn, too, each as the value of this.

    Attributes:
        operands: what is no option.
        written: the option whose turn it is, as it was written.
    """

    def __init__(self, flags: Sequence[Flag], words: Sequence[str], operand: Flag | None = None) -> None:
        self._flags = flags
        self._words = words
        self._operand = operand
        self.operands: list[str] = []
        self.written = ""

    def __iter__(self) -> Iterator[tuple[Flag, str]]:
        """Go through the options.

        Raises:
            UsageError: one is unknown, ambiguous, or lacks its value; the text is glibc's.
        """
        words = iter(self._words)
        for word in words:
            self.written = word
            if word == "--":
                for rest in words:
                    yield from self._no_option(rest)
            elif word.startswith("--"):
                yield self._long(word, words)
            elif word.startswith("-") and word != "-":
                yield from self._bundle(word[1:], words)
            else:
                yield from self._no_option(word)

    def _no_option(self, word: str) -> Iterator[tuple[Flag, str]]:
        self.operands.append(word)
        self.written = word
        if self._operand is not None:
            yield self._operand, word

    def _long(self, word: str, words: Iterator[str]) -> tuple[Flag, str]:
        name, equals, value = word[2:].partition("=")
        found = [flag for flag in self._flags if flag.long == name]
        found = found or [flag for flag in self._flags if flag.long.startswith(name)]
        if not found:
            raise UsageError(f"unrecognized option '--{name}'")
        if len(found) > 1:
            possible = " ".join(f"'--{flag.long}'" for flag in found)
            raise UsageError(f"option '--{name}' is ambiguous; possibilities: {possible}")
        flag = found[0]
        if not flag.value:
            if equals:
                raise UsageError(f"option '--{flag.long}' doesn't allow an argument")
            return flag, ""
        if equals:
            return flag, value
        following = next(words, None)
        if following is None:
            raise UsageError(f"option '--{flag.long}' requires an argument")
        self.written = f"{word} {following}"
        return flag, following

    def _bundle(self, letters: str, words: Iterator[str]) -> Iterator[tuple[Flag, str]]:
        for index, letter in enumerate(letters, 1):
            flag = next((flag for flag in self._flags if flag.short == letter), None)
            if flag is None:
                raise UsageError(f"invalid option -- '{letter}'")
            if not flag.value:
                yield flag, ""
                continue
            value = letters[index:] or next(words, None)
            if value is None:
                raise UsageError(f"option requires an argument -- '{letter}'")
            yield flag, value
            return
