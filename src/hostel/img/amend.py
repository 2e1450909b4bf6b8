"""Change what an image was created with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hostel.block import registry
from hostel.block.node import BlockNode
from hostel.block.options import Given, OptionError, Options
from hostel.block.powers import Amendable, Creatable
from hostel.errors import UnknownFormat, UnsupportedFeature
from hostel.img.create import convert


def amend_options(format: str) -> Options:
    """What can be changed in images of a format.

    Raises:
        UnknownFormat: there is no such format.
        UnsupportedFeature: nothing can be changed.
    """
    if not registry.is_driver(format):
        raise UnknownFormat(f"Unknown file format '{format}'")
    driver = registry.format_driver(format) if format in registry.FORMATS else None
    if not isinstance(driver, Amendable):
        raise _unsupported(format)
    return driver.amend_options


def amend(
    node: BlockNode,
    given: Iterable[Given],
    *,
    force: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Change what is given of an image, and nothing else, and make that survive a power cut.

    Args:
        node: the image, open for writing.
        given: options as written.
        force: also what makes data unreadable.
        report: told how far it is, of how much.

    Raises:
        OptionError: an option is unknown, can only be given to a new image, or has a bad value.
        UnsupportedFeature: the format cannot, or not with what the image has.
        BlockError: something cannot be as it shall be.
        OSError: the host's own errors.
    """
    driver = node.driver
    if not isinstance(driver, Amendable):
        raise _unsupported(node.format)
    options = list(given)
    try:
        values = convert(driver.amend_options, options)
    except OptionError as error:
        if isinstance(driver, Creatable) and _convertible(driver.amend_options + driver.create_options, options):
            error.hint = "This option is only supported for image creation"
        raise
    report(0, 1)
    try:
        with node.lock():
            driver.amend(values, force=force, report=report)
        node.flush()
    finally:
        report(1, 1)


def _convertible(declared: Options, given: list[Given]) -> bool:
    try:
        convert(declared, given)
    except OptionError:
        return False
    return True


def _unsupported(format: str) -> UnsupportedFeature:
    return UnsupportedFeature(f"Format driver '{format}' does not support option amendment")
