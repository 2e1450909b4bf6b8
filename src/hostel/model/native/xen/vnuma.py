"""Distances between cells, where a document does not say them all (``virDomainNumaGetNodeDistance``)."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.cpu import Cell

_HERE: Final = 10
_ELSEWHERE: Final = 20


def distance(cell: Cell, other: int) -> int:
    """How far it is from one cell to another."""
    siblings = cell.distances.siblings if cell.distances is not None else []
    default = _HERE if cell.id == other else _ELSEWHERE
    return next((item.value for item in siblings if item.id == other), default)
