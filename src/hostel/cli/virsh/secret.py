"""Secrets."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import Final

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.session import VALIDATE, CommandError, Session, failing, read_document, validated
from hostel.drivers.base.secret import SecretRef
from hostel.drivers.document import canonical_uuid
from hostel.errors import ErrorCode, ErrorDomain, VirtError

SECRET: Final = data("secret", "secret UUID")
_LONGEST: Final = 64 << 10  # bytes of a file with a value


def _find(session: Session, args: Args) -> SecretRef:
    word = args["secret"]
    try:
        if canonical_uuid(word) is None:  # a daemon would not be asked
            what = "uuidstr in virSecretLookupByUUIDString must be a valid UUID"
            raise VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.SECRET)
        return session.secret.secret_lookup_by_uuid(word)
    except VirtError as error:
        raise CommandError(f"failed to get secret '{word}'", error) from error


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to set attributes from {args['file']}"):
        secret = session.secret.secret_define_xml(validated(args, xml, "secret"))
    session.output.note(f"Secret {secret.uuid} created")


def _dumpxml(session: Session, args: Args) -> None:
    document.show(session, session.secret.secret_get_xml_desc(_find(session, args)), args)


def _set_value(session: Session, args: Args) -> None:
    for one, other in (
        ("file", "base64"),
        ("plain", "base64"),
        ("interactive", "base64"),
        ("interactive", "plain"),
        ("interactive", "file"),
    ):
        args.exclude(one, other)
    secret = _find(session, args)
    given = _given_value(session, args)
    with failing("Failed to set secret value"):
        session.secret.secret_set_value(secret, given)
    session.output.note("Secret value set")


def _given_value(session: Session, args: Args) -> bytes:
    text = args.get("base64")
    if text is not None:
        session.output.error("Passing secret value as command-line argument is insecure!")
        return _decoded(text.encode())
    path = args.get("file")
    if path is not None:
        try:
            with Path(path).open("rb") as stream:
                content = stream.read(_LONGEST + 1)
        except OSError as error:
            raise CommandError(f"Failed to open file '{path}': {error.strerror}") from error
        if len(content) > _LONGEST:
            raise CommandError(f"Failed to read file '{path}': Value too large for defined data type")
        return content if args.has("plain") else _decoded(content)
    if args.has("interactive"):
        from getpass import getpass

        session.output.text("Enter new value for secret:")
        sys.stdout.flush()
        try:
            return getpass("").encode()
        except (EOFError, OSError) as error:
            raise CommandError("Failed to read secret") from error
    raise CommandError("Input secret value is missing")


def _decoded(text: bytes) -> bytes:
    """Base64; like virsh's decoder it passes over line ends, unlike it refuses what is none."""
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        reason = f"the value is not base64 ({error}): use --plain for a file that has the value itself"
        raise CommandError(reason) from None


def _get_value(session: Session, args: Args) -> None:
    secret = _find(session, args)
    found = session.secret.secret_get_value(secret)
    if args.has("plain"):
        sys.stdout.flush()
        sys.stdout.buffer.write(found)
        sys.stdout.flush()
    else:
        session.output.text(base64.b64encode(found).decode())


def _undefine(session: Session, args: Args) -> None:
    secret = _find(session, args)
    with failing(f"Failed to delete secret {args['secret']}"):
        session.secret.secret_undefine(secret)
    session.output.note(f"Secret {args['secret']} deleted")


def _list(session: Session, args: Args) -> None:
    from hostel.model.secret import read_secret

    with failing("Failed to list node secrets"):
        refs = session.secret.connect_list_all_secrets()
        described = [(ref, read_secret(session.secret.secret_get_xml_desc(ref))) for ref in refs]
    for name in ("ephemeral", "private"):
        if args.has(name) != args.has(f"no-{name}"):
            described = [each for each in described if bool(getattr(each[1], name)) == args.has(name)]
    rows = [
        [ref.uuid, f"{ref.usage_type.name.lower()} {ref.usage_id}" if ref.usage_type else "Unused"]
        for ref, _ in sorted(described, key=lambda each: each[0].uuid)
    ]
    session.output.table(["UUID", "Usage"], rows)


COMMANDS = (
    Command(
        "secret-define",
        "make or change a secret from a document",
        (data("file", "file containing secret attributes in XML"), VALIDATE),
        _define,
    ),
    Command("secret-dumpxml", "the document of a secret", (SECRET, *document.PARTS), _dumpxml),
    Command(
        "secret-get-value", "the value of a secret", (SECRET, flag("plain", "as it is, not in base64")), _get_value
    ),
    Command(
        "secret-list",
        "list secrets",
        (
            flag("ephemeral", "only those that are not kept on disk"),
            flag("no-ephemeral", "only those that are"),
            flag("private", "only those whose value is not shown"),
            flag("no-private", "only those whose value is"),
        ),
        _list,
    ),
    Command(
        "secret-set-value",
        "set the value of a secret",
        (
            SECRET,
            value("file", "read it from a file", positional=False),
            flag("plain", "the file has it as it is, not in base64"),
            flag("interactive", "read it from the terminal"),
            value("base64", "the value in base64; others see it in the list of processes"),
        ),
        _set_value,
    ),
    Command("secret-undefine", "forget a secret", (SECRET,), _undefine),
)
