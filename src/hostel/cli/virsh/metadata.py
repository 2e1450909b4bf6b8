"""Titles, descriptions and elements of domains."""

from __future__ import annotations

from hostel.cli.options import Args, Command, data, flag, rest, value
from hostel.cli.virsh import affect
from hostel.cli.virsh.editor import edit_document, edit_text
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.metadata import MetadataDriver
from hostel.drivers.base.offered import offered
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.metadata import MetadataType


def _calls(session: Session, api: str) -> MetadataDriver:
    return offered(session.hypervisor, MetadataDriver, api)


def _described(session: Session, domain: DomainRef, kind: MetadataType, which: Affect) -> str:
    try:
        return _calls(session, "virDomainGetMetadata").domain_get_metadata(domain, kind, None, which)
    except VirtError as error:
        if error.code is not ErrorCode.NO_DOMAIN_METADATA:
            raise
        return ""


def _desc(session: Session, args: Args) -> None:
    affect.check(args)
    domain = session.domain(args)
    kind, word = (MetadataType.TITLE, "title") if args.has("title") else (MetadataType.DESCRIPTION, "description")
    words = args.rest
    text = " ".join(words)
    if args.has("edit"):
        before = _described(session, domain, kind, Affect.CONFIG if args.has("config") else Affect.CURRENT)
        text = edit_text(text if words else before)
        if kind is MetadataType.TITLE:
            text = text.removesuffix("\n")
        if text == before:
            session.output.note(f"Domain {word} not changed")
            return
    if words or args.has("edit"):
        with failing(f"Failed to set new domain {word}"):
            calls = _calls(session, "virDomainSetMetadata")
            calls.domain_set_metadata(domain, kind, text, None, None, affect.affected(args))
        session.output.note(f"Domain {word} updated successfully", end="")  # virsh ends none of these lines
        return
    which = Affect.CONFIG if args.has("config") else Affect.CURRENT
    text = _described(session, domain, kind, which)
    if text:
        session.output.text(text)
    else:
        session.output.note(f"No {word} for domain: {domain.name}", end="")


def _metadata(session: Session, args: Args) -> None:
    affect.check(args)
    for one, other in (("edit", "set"), ("remove", "set"), ("remove", "edit")):
        args.exclude(one, other)
    domain, which = session.domain(args), affect.affected(args)
    uri, text = args["uri"], args.get("set")
    if (text is not None or args.has("edit")) and args.get("key") is None:
        raise CommandError("namespace key is required when modifying metadata")
    if args.has("edit"):
        _edit_metadata(session, args, domain, which)
        return
    if text is None and not args.has("remove"):
        session.output.line(
            _calls(session, "virDomainGetMetadata").domain_get_metadata(domain, MetadataType.ELEMENT, uri, which)
        )
        return
    calls = _calls(session, "virDomainSetMetadata")
    calls.domain_set_metadata(domain, MetadataType.ELEMENT, text, args.get("key"), uri, which)
    session.output.note("Metadata modified" if text is not None else "Metadata removed")


def _edit_metadata(session: Session, args: Args, domain: DomainRef, which: Affect) -> None:
    uri, key = args["uri"], args.get("key")
    calls = _calls(session, "virDomainSetMetadata")

    def get() -> str:
        try:
            return calls.domain_get_metadata(domain, MetadataType.ELEMENT, uri, which)
        except VirtError:
            return "\n"

    def define(text: str, _: bool) -> bool:
        calls.domain_set_metadata(domain, MetadataType.ELEMENT, text, key, uri, which)
        return True

    made = edit_document(session, get, define)
    session.output.note("Metadata not changed" if made is None else "Metadata modified")


COMMANDS = (
    Command(
        "desc",
        "show or set the description of a domain, or its title",
        (
            DOMAIN,
            affect.LIVE,
            affect.CONFIG,
            affect.CURRENT,
            flag("title", "the title"),
            flag("edit", "in an editor"),
            rest("new-desc", "the text"),
        ),
        _desc,
    ),
    Command(
        "metadata",
        "show, set or remove an element of another program's",
        (
            DOMAIN,
            data("uri", "the namespace"),
            affect.LIVE,
            affect.CONFIG,
            affect.CURRENT,
            flag("edit", "in an editor"),
            value("key", "the prefix of the namespace"),
            value("set", "the element"),
            flag("remove", "remove it"),
        ),
        _metadata,
    ),
)
