"""Names of disks by their place: ``sda`` is 0, ``sdz`` 25, ``sdaa`` 26 (``virIndexToDiskName``)."""

from __future__ import annotations


def disk_name(prefix: str, position: int) -> str:
    """The name of a disk.

    >>> disk_name("hd", 2), disk_name("sd", 26)
    ('hdc', 'sdaa')
    """
    letters = ""
    while position >= 0:
        position, letter = divmod(position, 26)
        letters = chr(ord("a") + letter) + letters
        position -= 1
    return prefix + letters
