"""Check an image's metadata, and repair it."""

from __future__ import annotations

from typing import Any, NamedTuple

from hostel.block.node import BlockNode
from hostel.block.powers import Checkable, CheckResult, Repair, Report
from hostel.errors import UnsupportedFeature


class Checked(NamedTuple):
    """What a check found.

    Attributes:
        result: what is wrong now, after any repair.
        leaks_fixed: lost clusters that were given back.
        corruptions_fixed: wrong metadata that was rewritten.
    """

    result: CheckResult
    leaks_fixed: int
    corruptions_fixed: int


def check(node: BlockNode, repair: Repair, report: Report, before_second: Report | None = None) -> Checked:
    """Check an image; where something was repaired, check the result again.

    Args:
        node: the image, opened with ``check=True``, and for writing where it may be repaired.
        repair: what may be repaired.
        report: gets a line for each finding.
        before_second: gets what was repaired, as a text, before the second check.

    Raises:
        UnsupportedFeature: the format has no checks.
        OSError: metadata could not be read or written.
    """
    driver = node.driver
    if not isinstance(driver, Checkable):
        raise UnsupportedFeature("This image format does not support checks")
    with node.lock():
        result = driver.check(repair, report)
        leaks, corruptions = result.leaks_fixed, result.corruptions_fixed
        if leaks or corruptions:
            if before_second is not None:
                before_second(
                    "The following inconsistencies were found and repaired:\n\n"
                    f"    {leaks} leaked clusters\n"
                    f"    {corruptions} corruptions\n\n"
                    "Double checking the fixed image now..."
                )
            result = driver.check(Repair.NOTHING, report)
    return Checked(result, leaks, corruptions)


def to_json(checked: Checked, filename: str, format: str) -> dict[str, Any]:
    """QEMU's ``ImageCheck``: members in the order of its schema, zeroes left out."""
    result = checked.result
    optional = {
        "image-end-offset": result.image_end_offset,
        "corruptions": result.corruptions,
        "leaks": result.leaks,
        "corruptions-fixed": checked.corruptions_fixed,
        "leaks-fixed": checked.leaks_fixed,
        "total-clusters": result.total_clusters,
        "allocated-clusters": result.allocated_clusters,
        "fragmented-clusters": result.fragmented_clusters,
        "compressed-clusters": result.compressed_clusters,
    }
    return {
        "filename": filename,
        "format": format,
        "check-errors": result.check_errors,
        **{key: value for key, value in optional.items() if value},
    }
