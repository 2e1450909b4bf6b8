"""Other hypervisors' configuration: to documents, and from them."""

from __future__ import annotations

from typing import Final

from hostel.cli.options import Args, Command, data, value
from hostel.cli.virsh.session import CommandError, Session, read_document
from hostel.errors import UsageError


def _from_native(session: Session, args: Args) -> None:
    config = read_document(args["config"], errors="surrogateescape")  # a .vmx file may say that it is no UTF-8
    session.output.text(session.hypervisor.connect_domain_xml_from_native(args["format"], config))


def _to_native(session: Session, args: Args) -> None:
    if args.has("domain") and args.has("xml"):
        raise UsageError("Options --domain and --xml are mutually exclusive")
    if args.has("domain"):
        xml = session.hypervisor.domain_get_xml_desc(session.domain(args))
    elif args.has("xml"):
        xml = read_document(args["xml"])
    else:
        raise CommandError("need either domain or domain XML")
    session.output.text(session.hypervisor.connect_domain_xml_to_native(args["format"], xml))


COMMANDS: Final = (
    Command(
        "domxml-from-native",
        "Convert native config to domain XML",
        (data("format", "source config data format"), data("config", "config data file to import from")),
        _from_native,
    ),
    Command(
        "domxml-to-native",
        "Convert domain XML to native config",
        (
            data("format", "target config data type format"),
            value("domain", "domain name, id or uuid", positional=False),
            value("xml", "xml data file to export from"),
        ),
        _to_native,
    ),
)
