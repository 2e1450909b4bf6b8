"""``--object``: what QEMU would create beside an image.

No format that can be opened yet needs a key and no protocol a certificate, so objects are checked and not kept.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from hostel.block.options import split_options
from hostel.cli.img.arguments import Failure
from hostel.codec.qobject import parse_json

_SECRET: Final = ("data", "file", "format", "iv", "keyid")
# The types that qemu-img can create, and the properties of those that are checked.
_TYPES: Final[Mapping[str, tuple[str, ...] | None]] = {
    "authz-list": None,
    "authz-list-file": None,
    "authz-simple": None,
    "main-loop": None,
    "pr-manager-helper": None,
    "secret": _SECRET,
    "secret_keyring": None,
    "thread-context": None,
    "throttle-group": None,
    "tls-cipher-suites": None,
    "tls-creds-anon": None,
    "tls-creds-psk": None,
    "tls-creds-x509": None,
}
_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)


def check_objects(texts: Iterable[str]) -> str | None:
    """Check the definitions in their order.

    Returns:
        The list of types where one of them asks for help.

    Raises:
        Failure: a definition is wrong; the text is QEMU's.
    """
    seen: set[str] = set()
    for text in texts:
        if text in ("help", "?"):
            return "List of user creatable objects:\n" + "".join(f"  {name}\n" for name in _TYPES)
        given = _read(text)
        _check(given)
        if given["id"] in seen:
            raise Failure(f"attempt to add duplicate property '{given['id']}' to object (type 'container')")
        seen.add(given["id"])
    return None


def _read(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            tree = parse_json(text)
        except ValueError as error:
            raise Failure(str(error)) from None
        return dict(tree)
    head, comma, tail = text.partition(",")
    if head and "=" not in head:
        text = f"qom-type={head}{comma}{tail}"
    return dict(split_options(text))


def _check(given: dict[str, Any]) -> None:
    kind = given.pop("qom-type", None)
    if kind is None:
        raise Failure("Parameter 'qom-type' is missing")
    if kind not in _TYPES:
        raise Failure(f"Parameter 'qom-type' does not accept value '{kind}'")
    if "id" not in given:
        raise Failure("Parameter 'id' is missing")
    properties = _TYPES[kind]
    if properties is not None:
        for name in given:
            if name != "id" and name not in properties:
                raise Failure(f"Parameter '{name}' is unexpected")
    if not _IDENTIFIER.fullmatch(str(given["id"])):
        raise Failure("Parameter 'id' expects an identifier")
    if kind == "secret":
        _check_secret(given)


def _check_secret(given: Mapping[str, Any]) -> None:
    data, file = given.get("data"), given.get("file")
    format = given.get("format", "raw")
    if format not in ("raw", "base64"):
        raise Failure(f"Parameter 'format' does not accept value '{format}'")
    if data is not None and file is not None:
        raise Failure("'file' and 'data' are mutually exclusive")
    if data is None and file is None:
        raise Failure("Either 'file' or 'data' must be provided")
    if "keyid" in given:
        raise Failure("Encrypted secrets (keyid=) are not supported yet")
    if file is not None:
        try:
            with open(file, "rb") as stream:
                data = stream.read()
        except OSError as error:
            raise Failure(f"Unable to read {file}: {error.strerror}") from None
    if format == "base64" and data is not None:
        try:
            binascii.a2b_base64(data, strict_mode=True)
        except (binascii.Error, ValueError):
            raise Failure("Base64 data contains invalid characters") from None
