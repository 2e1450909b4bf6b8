"""``--object``: what is made beside an image, to be named by its options: secrets, TLS credentials, authorizations."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.block import objects
from hostel.block.options import split_commas
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.keyval import parse
from hostel.cli.qemu.object_rules import check_helper, check_loop, check_suites, read_key, read_properties
from hostel.cli.qemu.object_types import OF_DAEMONS, OF_MACHINES, OF_TOOLS, properties
from hostel.codec.qobject import parse_json
from hostel.errors import BlockError, NetworkError

if TYPE_CHECKING:
    from hostel.net.authorization import ListAuthorization

Maker = Callable[[Mapping[str, Any]], object]
_IDENTIFIERS: Final = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
# What GnuTLS is told where nothing special is wanted.
_PRIORITIES: Final = ("NORMAL", "SYSTEM", "@SYSTEM")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/=\n]*")
_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)


def create_object(text: str, types: Sequence[str] = OF_TOOLS) -> str | None:
    """Make what a definition says, an object of one of ``types``.

    Returns:
        What it asks for, by ``help``: nothing is made then.

    Raises:
        Failure: the definition is wrong; the text is QEMU's.
    """
    if not text.startswith("{") and any(part in ("help", "?") for part in split_commas(text)):
        from hostel.cli.qemu.object_help import object_help

        first = split_commas(text)[0]
        return object_help(first.removeprefix("qom-type="), types)
    tree, is_text = parse(text, "qom-type")
    make_object(tree, types, text=is_text)
    return None


def make_object(tree: Mapping[str, Any], types: Sequence[str] = OF_TOOLS, *, text: bool = False) -> None:
    """Make one object for :mod:`hostel.block.objects`.

    Args:
        tree: its properties, ``qom-type`` and ``id`` among them.
        types: of which one is made.
        text: the properties are text, as on a command line, of whatever type they are.

    Raises:
        Failure: a property is wrong; the text is QEMU's.
    """
    given = dict(tree)
    kind = _check(given, types, text=text)
    made = _MAKERS[kind](given)
    try:
        objects.add(str(given.pop("id")), made, objects.Made(kind, given))
    except BlockError as error:
        raise Failure(error.message) from None


def _check(given: dict[str, Any], types: Sequence[str], *, text: bool) -> str:
    kind = str(given.pop("qom-type", ""))
    if not kind:
        raise Failure("Parameter 'qom-type' is missing")
    if kind not in OF_DAEMONS and kind not in OF_MACHINES:
        raise Failure(f"Parameter 'qom-type' does not accept value '{kind}'")
    if "id" not in given:
        raise Failure("Parameter 'id' is missing")
    if text and isinstance(given["id"], Mapping):
        raise Failure("Parameters 'id.*' are unexpected")
    if not isinstance(given["id"], str):
        raise Failure("Invalid parameter type for 'id', expected: string")
    if kind in OF_DAEMONS:
        read_properties(kind, given, text=text)
    if kind not in types:
        raise Failure(f"invalid object type: {kind}")
    if not _IDENTIFIER.fullmatch(given["id"]):
        raise Failure("Parameter 'id' expects an identifier", hint=_IDENTIFIERS)
    for name in given:
        if name != "id" and properties(kind)[name].fixed:
            raise Failure(f"Property '{kind}.{name}' is not writable")
    return kind


def _secret(given: Mapping[str, Any]) -> objects.Secret:
    data, file = given.get("data"), given.get("file")
    if data is not None and file is not None:
        raise Failure("'file' and 'data' are mutually exclusive")
    if data is None and file is None:
        raise Failure("Either 'file' or 'data' must be provided")
    if file is not None:
        try:
            with open(file, "rb") as stream:
                content = stream.read()
        except OSError as error:
            raise Failure(f"Unable to read {file}: Failed to open file “{file}”: {error.strerror}") from None
    else:
        content = str(data).encode("utf-8", "surrogateescape")
    return _secret_of(content, given)


def _key(given: Mapping[str, Any]) -> objects.Secret:
    return _secret_of(read_key(given), given)


def _secret_of(content: bytes, given: Mapping[str, Any]) -> objects.Secret:
    if given.get("format") == "base64":
        content = _from_base64(content)
    if "keyid" in given:
        content = _decrypted(content, str(given["keyid"]), given.get("iv"))
    return objects.Secret(content)


def _from_base64(text: bytes) -> bytes:
    """What is encoded, as QEMU decodes it: four digits after four, with padding anywhere; fewer at the end are none."""
    if _BASE64.fullmatch(text) is None:
        raise Failure("Base64 data contains invalid characters")
    digits = text.translate(None, b"\n")
    groups = (digits[start : start + 4] for start in range(0, len(digits) - 3, 4))
    return b"".join(map(_from_four_digits, groups))


def _from_four_digits(digits: bytes) -> bytes:
    three = binascii.a2b_base64(digits.replace(b"=", b"A"))
    return three[:1] + three[1:2] * (digits[2:3] != b"=") + three[2:] * (digits[3:] != b"=")


def _decrypted(content: bytes, key_name: str, vector: Any) -> bytes:
    """A secret that was encrypted with another one, by AES-256 in CBC, filled up to whole blocks (PKCS #7)."""
    from hostel.block.crypto.algorithm import CIPHERS
    from hostel.block.crypto.sector import decrypt_chain

    try:
        key = objects.secret(key_name).data
    except BlockError as error:
        raise Failure(error.message) from None
    cipher = CIPHERS["aes-256"]
    if len(key) != cipher.key_length:
        raise Failure("Key should be 32 bytes in length")
    if vector is None:
        raise Failure("IV is required to decrypt secret")
    start = _from_base64(str(vector).encode())
    if len(start) != cipher.block_length:
        raise Failure(f"IV should be 16 bytes in length not {len(start)}")
    if not content or len(content) % cipher.block_length:
        raise Failure(f"Length {len(content)} must be a multiple of block size {cipher.block_length}")
    plain = decrypt_chain(cipher, key, start, content)
    padding = plain[-1]
    if padding > cipher.block_length:
        raise Failure(f"Incorrect number of padding bytes ({padding}) found on decrypted data")
    return plain[: len(plain) - padding]


def _tls_credentials(given: Mapping[str, Any]) -> object:
    from hostel.net.tls import TlsCredentials

    if "dir" not in given:
        raise Failure("Missing 'dir' property value")
    try:
        password = objects.secret(str(given["passwordid"])).data if "passwordid" in given else None
        made = TlsCredentials(
            given["dir"],
            server=given.get("endpoint") == "server",
            verify_peer=given.get("verify-peer", True),
            password=password,
        )
    except (BlockError, NetworkError) as error:
        raise Failure(error.message) from None
    priority = str(given.get("priority", "NORMAL"))
    if priority not in _PRIORITIES:
        raise Failure(f"TLS priorities are GnuTLS's own, and cannot be followed: '{priority}'")
    return made


def _authorize_one(given: Mapping[str, Any]) -> object:
    from hostel.net.authorization import SimpleAuthorization

    return SimpleAuthorization(given["identity"])


def _authorize_list(given: Mapping[str, Any]) -> ListAuthorization:
    from hostel.net.authorization import ListAuthorization, Rule

    rules = [
        Rule(rule["match"], rule["policy"] == "allow", rule.get("format") == "glob") for rule in given.get("rules", ())
    ]
    return ListAuthorization(rules, given.get("policy") == "allow")


def _authorize_file(given: Mapping[str, Any]) -> object:
    """Rules in a JSON file, which is read again for each client, whether it was to be watched or not."""
    from hostel.net.authorization import FileAuthorization

    filename = given["filename"]

    def load() -> ListAuthorization:
        with open(filename, encoding="utf-8") as stream:
            tree = parse_json(stream.read())
        if not isinstance(tree, dict):
            raise ValueError(f"{filename}: it is no object")
        try:
            read_properties("authz-list", tree, text=False)
            return _authorize_list(tree)
        except Failure as error:
            raise ValueError(f"{filename}: {error}") from None

    try:
        load()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Failure(f"Unable to read '{filename}': {reason}") from None
    return FileAuthorization(load)


def _throttle_group(given: Mapping[str, Any]) -> object:
    from hostel.block.filters.throttle import ThrottleGroup

    properties = {f"limits.{name}": value for name, value in given.get("limits", {}).items()}
    properties |= {name: value for name, value in given.items() if name not in ("id", "limits")}
    try:
        return ThrottleGroup.from_properties(properties)
    except BlockError as error:
        raise Failure(error.message) from None


def _named(kind: str, check: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Maker:
    """What is checked and then no more than its name: nothing here needs it."""

    def make(given: Mapping[str, Any]) -> object:
        check(given)
        return kind

    return make


def _refuse(kind: str) -> Maker:
    def make(_: Mapping[str, Any]) -> object:
        raise Failure(f"'{kind}' objects are not supported; TLS is done with tls-creds-x509")

    return make


def make_again(kind: str, given: Mapping[str, Any]) -> object:
    """An object of a type with other properties.

    Raises:
        Failure: one is wrong; the text is QEMU's.
    """
    return _MAKERS[kind](given)


_MAKERS: Final[Mapping[str, Maker]] = {
    "authz-list": _authorize_list,
    "authz-listfile": _authorize_file,
    "authz-simple": _authorize_one,
    "iothread": _named("iothread", check_loop),
    "main-loop": _named("main-loop", check_loop),
    "pr-manager-helper": _named("pr-manager-helper", check_helper),
    "secret": _secret,
    "secret_keyring": _key,
    "thread-context": _named("thread-context"),
    "throttle-group": _throttle_group,
    "tls-cipher-suites": _named("tls-cipher-suites", check_suites),
    "tls-creds-anon": _refuse("tls-creds-anon"),
    "tls-creds-psk": _refuse("tls-creds-psk"),
    "tls-creds-x509": _tls_credentials,
}
