"""Filters of packets."""

from __future__ import annotations

from typing import Final

from hostel.cli.options import Args, Command, data, flag, later
from hostel.cli.virsh import document
from hostel.cli.virsh.session import CommandError, Session, failing, read_document
from hostel.drivers.base.nwfilter import NwfilterRef
from hostel.errors import VirtError

NWFILTER: Final = data("nwfilter", "filter name or UUID")
_UUID_LENGTH: Final = 36


def _find(session: Session, args: Args) -> NwfilterRef:
    word = args["nwfilter"]
    driver = session.nwfilter
    try:
        if len(word) == _UUID_LENGTH:
            try:
                return driver.nwfilter_lookup_by_uuid(word)
            except VirtError:
                pass  # it may be a name
        return driver.nwfilter_lookup_by_name(word)
    except VirtError as error:
        raise CommandError(f"failed to get nwfilter '{word}'", error) from error


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define network filter from {args['file']}"):
        nwfilter = session.nwfilter.nwfilter_define_xml(xml)
    session.output.note(f"Network filter {nwfilter.name} defined from {args['file']}")


def _undefine(session: Session, args: Args) -> None:
    nwfilter = _find(session, args)
    with failing(f"Failed to undefine network filter {args['nwfilter']}"):
        session.nwfilter.nwfilter_undefine(nwfilter)
    session.output.note(f"Network filter {args['nwfilter']} undefined")


def _dumpxml(session: Session, args: Args) -> None:
    document.show(session, session.nwfilter.nwfilter_get_xml_desc(_find(session, args)), args)


def _list(session: Session, args: Args) -> None:
    with failing("Failed to list network filters"):
        found = session.nwfilter.connect_list_all_nwfilters()
    rows = sorted(found, key=lambda ref: ref.name.casefold())
    session.output.table(("UUID", "Name"), [(ref.uuid, ref.name) for ref in rows])


COMMANDS = (
    Command(
        "nwfilter-define",
        "have a filter of packets, or change one",
        (data("file", "file with a filter document"), later(flag("validate", "by libvirt's schema"))),
        _define,
    ),
    Command("nwfilter-dumpxml", "the document of a filter", (NWFILTER, *document.PARTS), _dumpxml),
    Command("nwfilter-list", "list the filters of packets", (), _list),
    Command("nwfilter-undefine", "have a filter no more", (NWFILTER,), _undefine),
)
