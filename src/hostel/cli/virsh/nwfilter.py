"""Filters of packets."""

from __future__ import annotations

from typing import Final

from hostel.cli.options import Args, Command, data
from hostel.cli.virsh import document
from hostel.cli.virsh.session import VALIDATE, CommandError, Session, failing, read_document, validated
from hostel.drivers.base.nwfilter import NwfilterBindingRef, NwfilterBindings, NwfilterRef
from hostel.drivers.base.offered import offered
from hostel.errors import VirtError

NWFILTER: Final = data("nwfilter", "filter name or UUID")
_BINDING: Final = data("binding", "name of the interface")
_UUID_LENGTH: Final = 36


def find(session: Session, args: Args) -> NwfilterRef:
    """The filter that is named, by its UUID or its name."""
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
        nwfilter = session.nwfilter.nwfilter_define_xml(validated(args, xml, "network filter"))
    session.output.note(f"Network filter {nwfilter.name} defined from {args['file']}")


def _undefine(session: Session, args: Args) -> None:
    nwfilter = find(session, args)
    with failing(f"Failed to undefine network filter {args['nwfilter']}"):
        session.nwfilter.nwfilter_undefine(nwfilter)
    session.output.note(f"Network filter {args['nwfilter']} undefined")


def _dumpxml(session: Session, args: Args) -> None:
    document.show(session, session.nwfilter.nwfilter_get_xml_desc(find(session, args)), args)


def _list(session: Session, args: Args) -> None:
    with failing("Failed to list network filters"):
        found = session.nwfilter.connect_list_all_nwfilters()
    rows = sorted(found, key=lambda ref: ref.name.casefold())
    session.output.table(("UUID", "Name"), [(ref.uuid, ref.name) for ref in rows])


def _bindings(session: Session, api: str) -> NwfilterBindings:
    return offered(session.nwfilter, NwfilterBindings, api)


def _find_binding(session: Session, args: Args) -> NwfilterBindingRef:
    word = args["binding"]
    try:
        driver = _bindings(session, "virNWFilterBindingLookupByPortDev")
        return driver.nwfilter_binding_lookup_by_port_dev(word)
    except VirtError as error:
        raise CommandError(f"failed to get nwfilter binding '{word}'", error) from error


def _create_binding(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to create network filter from {args['file']}"):
        binding = _bindings(session, "virNWFilterBindingCreateXML").nwfilter_binding_create_xml(
            validated(args, xml, "network filter binding")
        )
    session.output.note(f"Network filter binding on {binding.port_device} created from {args['file']}")


def _delete_binding(session: Session, args: Args) -> None:
    binding = _find_binding(session, args)
    with failing(f"Failed to delete network filter binding on {args['binding']}"):
        _bindings(session, "virNWFilterBindingDelete").nwfilter_binding_delete(binding)
    session.output.note(f"Network filter binding on {args['binding']} deleted")


def _dump_binding(session: Session, args: Args) -> None:
    binding = _find_binding(session, args)
    xml = _bindings(session, "virNWFilterBindingGetXMLDesc").nwfilter_binding_get_xml_desc(binding)
    document.show(session, xml, args)


def _list_bindings(session: Session, args: Args) -> None:
    with failing("Failed to list network filter bindings"):
        found = _bindings(session, "virConnectListAllNWFilterBindings").connect_list_all_nwfilter_bindings()
    rows = sorted(((ref.port_device, ref.filter) for ref in found), key=lambda row: row[0].casefold())
    session.output.table(("Port Dev", "Filter"), rows)


COMMANDS = (
    Command(
        "nwfilter-define",
        "have a filter of packets, or change one",
        (data("file", "file with a filter document"), VALIDATE),
        _define,
    ),
    Command("nwfilter-dumpxml", "the document of a filter", (NWFILTER, *document.PARTS), _dumpxml),
    Command(
        "nwfilter-binding-create",
        "let an interface of the host have a filter",
        (data("file", "file with a binding's document"), VALIDATE),
        _create_binding,
    ),
    Command("nwfilter-binding-delete", "let an interface have its filter no more", (_BINDING,), _delete_binding),
    Command("nwfilter-binding-dumpxml", "the document of a binding", (_BINDING, *document.PARTS), _dump_binding),
    Command("nwfilter-binding-list", "list which interfaces have which filters", (), _list_bindings),
    Command("nwfilter-list", "list the filters of packets", (), _list),
    Command("nwfilter-undefine", "have a filter no more", (NWFILTER,), _undefine),
)
