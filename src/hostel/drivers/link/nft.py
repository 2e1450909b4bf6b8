"""nftables: changes that are made as a whole or not at all, and in tables of our own."""

from __future__ import annotations

from typing import Final

from hostel.drivers import tool
from hostel.errors import ErrorDomain

TABLE: Final = "hostel"
_SECONDS: Final = 30.0


def apply(script: str) -> None:
    """Make changes, all of them or none.

    Raises:
        VirtError: nft refused, or is not installed.
    """
    if script:
        tool.run(["nft", "-f", "-"], ErrorDomain.NETWORK, timeout=_SECONDS, stdin=script)


def tables(family: str) -> set[str]:
    """The names of all tables of a family.

    Raises:
        VirtError: nft failed, or is not installed.
    """
    listed = tool.run(["nft", "list", "tables", family], ErrorDomain.NETWORK, timeout=_SECONDS)
    return {line.split()[2] for line in listed.out.splitlines()}


def chains(family: str) -> set[str]:
    """The names of the chains in our table of a family; none where there is no table.

    Raises:
        VirtError: nft failed, or is not installed.
    """
    if TABLE not in tables(family):
        return set()
    listed = tool.run(["nft", "list", "table", family, TABLE], ErrorDomain.NETWORK, timeout=_SECONDS)
    lines = (line.split() for line in listed.out.splitlines())
    return {words[1] for words in lines if len(words) > 2 and words[0] == "chain"}


def removal(family: str, names: set[str]) -> str:
    """The change after which these chains are gone, whether or not they were there, and an empty table as well.

    Raises:
        VirtError: nft failed, or is not installed.
    """
    there = chains(family)
    if there and there <= names:
        return f"delete table {family} {TABLE}\n"
    gone = sorted(names & there)
    return "".join(f"flush chain {family} {TABLE} {name}\ndelete chain {family} {TABLE} {name}\n" for name in gone)
