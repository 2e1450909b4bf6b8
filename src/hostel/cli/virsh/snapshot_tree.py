"""Trees as virsh draws them (``vshTreePrint``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def draw(parents: Mapping[str, str | None]) -> str:
    """Draw the trees of names, which have the name of their parent or None."""
    roots = [name for name, parent in parents.items() if parent not in parents]
    lines = (line for root in roots for line in _lines(root, parents, "", is_root=True, is_last=True))
    return "".join(f"{line}\n" for line in lines)


def _lines(name: str, parents: Mapping[str, str | None], indent: str, *, is_root: bool, is_last: bool) -> Iterator[str]:
    yield f"{indent}{'' if is_root else '+- '}{name}"
    if not is_root:
        indent += "  " if is_last else "| "
    children = [child for child, parent in parents.items() if parent == name]
    if children:
        yield f"{indent}  |"
    for child in children:
        yield from _lines(child, parents, f"{indent}  ", is_root=False, is_last=child == children[-1])
    if not children and is_last:
        yield indent
