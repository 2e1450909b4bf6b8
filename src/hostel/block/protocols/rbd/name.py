"""``rbd:`` names: ``rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:OPTION=VALUE]...``.

A backslash before a character takes away what it would mean there.
"""

from __future__ import annotations

from typing import Any, Final

from hostel.block.options import OptionError

SCHEME: Final = "rbd:"
# Where the options of Ceph that a name gives are put, as pairs. Nobody can give an option of this name in another way.
CEPH_OPTIONS: Final = "=keyvalue-pairs"
_OWN_WORDS: Final = {"conf": "conf", "id": "user"}


def parse(name: str) -> dict[str, Any]:
    """The options that a name stands for.

    Raises:
        OptionError: it is no such name; the text is QEMU's.
    """
    if not name.startswith(SCHEME):
        raise OptionError(f"File name must start with '{SCHEME}'")
    pool, rest = _token(name.removeprefix(SCHEME), "/")
    if rest is None:
        raise OptionError("Pool name is required")
    options: dict[str, Any] = {"pool": _unescape(pool)}
    image, after = _token(rest, "@")
    if after is not None:
        snapshot, after = _token(after, ":")
        options["snapshot"] = _unescape(snapshot)
    else:
        image, after = _token(rest, ":")
    namespace, inner = _token(image, "/")
    options["namespace"] = "" if inner is None else _unescape(namespace)
    options["image"] = _unescape(image if inner is None else inner)
    pairs: list[tuple[str, str]] = []
    while after is not None:
        key, value = _token(after, "=")
        if value is None:
            raise OptionError(f"conf option {key} has no value")
        value, after = _token(value, ":")
        if _unescape(key) in _OWN_WORDS:
            options[_OWN_WORDS[_unescape(key)]] = _unescape(value)
        else:
            pairs.append((_unescape(key), _unescape(value)))
    if pairs:
        options[CEPH_OPTIONS] = tuple(pairs)
    return options


def _token(text: str, end: str) -> tuple[str, str | None]:
    """What stands before a character, and what after it; None where it is not there."""
    index = 0
    while index < len(text):
        if text[index] == end:
            return text[:index], text[index + 1 :]
        index += 2 if text[index] == "\\" and index + 1 < len(text) else 1
    return text, None


def _unescape(text: str) -> str:
    found = ""
    index = 0
    while index < len(text):
        index += text[index] == "\\" and index + 1 < len(text)
        found += text[index]
        index += 1
    return found
