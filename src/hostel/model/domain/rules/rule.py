"""One rule: when it is broken, and the words for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from hostel.codec.xml import Element
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.device import VirtioOptions
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import Board, Platform, arch_of, board_of

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


class Machine(NamedTuple):
    """What a rule may look at beside the element: the whole document, and the emulator that is to run it.

    Attributes:
        domain: the document.
        platform: the emulator.
    """

    domain: Domain
    platform: Platform

    @property
    def arch(self) -> str:
        """The machine's architecture."""
        return arch_of(self.domain)

    @property
    def board(self) -> Board:
        """The machine's board."""
        return board_of(self.domain)

    @property
    def name(self) -> str:
        """The machine's type."""
        return (self.domain.os.type.machine if self.domain.os is not None else None) or ""

    def has(self, feature: str) -> bool:
        """Whether the emulator has a feature."""
        return self.platform.has(feature)


class MachineRule(NamedTuple, Generic[E]):
    """A rule for one kind of element on a machine; as :class:`Rule`, and the words may be fixed."""

    is_broken: Callable[[E, Machine], object]
    say: str | Callable[[E, Machine], str]
    below: str = ""
    code: ErrorCode = ErrorCode.CONFIG_UNSUPPORTED


def needs(
    feature: str, is_used: Callable[[E], object], say: str | Callable[[E, Machine], str], below: str = ""
) -> MachineRule[E]:
    """The rule that what an element asks for is something the emulator has."""
    return MachineRule(lambda element, machine: is_used(element) and not machine.has(feature), say, below)


def without_virtio_options(
    options: Callable[[E], VirtioOptions | None], is_virtio: Callable[[E], object]
) -> tuple[Rule[E], ...]:
    """The rules that what is not virtio has none of its options (``virDomainCheckVirtioOptionsAreAbsent``)."""
    return tuple(
        Rule(
            lambda element, name=field.name: (  # type: ignore[misc]
                not is_virtio(element) and getattr(options(element), name, None) is not None
            ),
            lambda _, name=field.name: (  # type: ignore[misc]
                f"{name} {'option' if name == 'page_per_vq' else 'driver option'} is only supported for virtio devices"
            ),
            below=f"/driver/@{field.name}",
        )
        for field in VirtioOptions.FIELDS
    )


def check(element: E, path: str, rules: Iterable[Rule[E]]) -> None:
    """Hold an element against rules.

    Raises:
        ModelError: the first that is broken.
    """
    for rule in rules:
        if rule.is_broken(element):
            raise ModelError(path + rule.below, rule.say(element), code=rule.code)


def check_on(element: E, path: str, machine: Machine, rules: Iterable[MachineRule[E]]) -> None:
    """Hold an element of a machine against rules.

    Raises:
        ModelError: the first that is broken.
    """
    for rule in rules:
        if rule.is_broken(element, machine):
            words = rule.say if isinstance(rule.say, str) else rule.say(element, machine)
            raise ModelError(path + rule.below, words, code=rule.code)
