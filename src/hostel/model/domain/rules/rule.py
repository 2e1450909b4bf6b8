"""One rule: when it is broken, and the words for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from hostel.codec.xml import Element
from hostel.errors import ErrorCode, ModelError

E = TypeVar("E", bound=Element)


class Rule(NamedTuple, Generic[E]):
    """A rule for one kind of element.

    Attributes:
        is_broken: whether an element breaks it.
        say: the words for it.
        code: libvirt's number for it.
        below: the place in the element, such as ``/target/@dev``.
    """

    is_broken: Callable[[E], object]
    say: Callable[[E], str]
    code: ErrorCode = ErrorCode.CONFIG_UNSUPPORTED
    below: str = ""


def check(element: E, path: str, rules: Iterable[Rule[E]]) -> None:
    """Hold an element against rules.

    Raises:
        ModelError: the first that is broken.
    """
    for rule in rules:
        if rule.is_broken(element):
            raise ModelError(path + rule.below, rule.say(element), code=rule.code)
