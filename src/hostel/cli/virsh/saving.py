"""Domain management: saved memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.block import progress
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing, read_document
from hostel.drivers.base import DomainXmlFlag, Progress
from hostel.drivers.base.offered import offered
from hostel.drivers.base.saving import SaveDriver, SaveFlag

FILE = data("file", "the file with the saved memory")
XML = data("xml", "file with the new document")
RUNNING = flag("running", "it runs when it goes on")
PAUSED = flag("paused", "it is paused when it goes on")
BYPASS = flag("bypass-cache", "past the host's cache")


def saves(session: Session, api: str) -> SaveDriver:
    """The driver, which must be able to save."""
    return offered(session.hypervisor, SaveDriver, api)


def flags(args: Args) -> SaveFlag:
    """How the machine goes on, as the options say."""
    bits = {
        "bypass-cache": SaveFlag.BYPASS_CACHE, "running": SaveFlag.RUNNING, "paused": SaveFlag.PAUSED,
        "reset-nvram": SaveFlag.RESET_NVRAM,
    }  # fmt: skip
    return args.flags(SaveFlag.NONE, bits)


def verbose(args: Args, label: str) -> Progress | None:
    """What shows how far it is, where ``--verbose`` asks for it."""
    if not args.has("verbose"):
        return None
    return lambda done, total: progress(label, total - done, total)


def absolute(path: str) -> str:
    """A path as a daemon can use it, which has another working directory."""
    return str(Path(os.path.abspath(path)))


def _save(session: Session, args: Args) -> None:
    domain, file = session.domain(args), args["file"]
    xml = read_document(args["xml"]) if args.get("xml") is not None else None
    with failing(f"Failed to save domain '{args['domain']}' to {file}"):
        driver = saves(session, "virDomainSaveFlags")
        driver.domain_save_flags(domain, absolute(file), xml, flags(args), verbose(args, "Save"))
    session.output.note(f"\nDomain '{args['domain']}' saved to {file}")


def _restore(session: Session, args: Args) -> None:
    file = args["file"]
    xml = read_document(args["xml"]) if args.get("xml") is not None else None
    with failing(f"Failed to restore domain from {file}"):
        saves(session, "virDomainRestoreFlags").domain_restore_flags(absolute(file), xml, flags(args))
    session.output.note(f"Domain restored from {file}")


def _managed(session: Session, args: Args) -> None:
    domain = session.domain(args)
    with failing(f"Failed to save domain '{domain.name}' state"):
        driver = saves(session, "virDomainManagedSave")
        driver.domain_managed_save(domain, flags(args), verbose(args, "Managedsave"))
    session.output.note(f"\nDomain '{domain.name}' state saved by libvirt")


def _managed_remove(session: Session, args: Args) -> None:
    domain = session.domain(args)
    driver = saves(session, "virDomainManagedSaveRemove")
    with failing(f"Failed to remove managed save image for domain '{args['domain']}'"):
        if not driver.domain_has_managed_save_image(domain):
            session.output.note(f"Domain '{args['domain']}' has no manage save image; removal skipped", end="")
            return
        driver.domain_managed_save_remove(domain)
    session.output.note(f"Removed managedsave image for domain '{args['domain']}'", end="")


def _managed_dumpxml(session: Session, args: Args) -> None:
    driver = saves(session, "virDomainManagedSaveGetXMLDesc")
    _show(session, args, lambda flags: driver.domain_managed_save_get_xml_desc(session.domain(args), flags))


def _image_dumpxml(session: Session, args: Args) -> None:
    driver = saves(session, "virDomainSaveImageGetXMLDesc")
    _show(session, args, lambda flags: driver.domain_save_image_get_xml_desc(absolute(args["file"]), flags))


def _show(session: Session, args: Args, get: Callable[[DomainXmlFlag], str]) -> None:
    document.show(session, get(DomainXmlFlag.SECURE if args.has("security-info") else DomainXmlFlag.NONE), args)


def _managed_define(session: Session, args: Args) -> None:
    domain = session.domain(args)
    xml = read_document(args["xml"])
    with failing(f"Failed to update {domain.name} XML configuration"):
        driver = saves(session, "virDomainManagedSaveDefineXML")
        driver.domain_managed_save_define_xml(domain, xml, flags(args))
    session.output.note(f"Managed save state file of domain '{domain.name}' updated.")


def _image_define(session: Session, args: Args) -> None:
    file = args["file"]
    exclusive(args)
    xml = read_document(args["xml"])
    with failing(f"Failed to update {file}"):
        driver = saves(session, "virDomainSaveImageDefineXML")
        driver.domain_save_image_define_xml(absolute(file), xml, flags(args))
    session.output.note(f"State file {file} updated.")


def exclusive(args: Args) -> None:
    """Refuse that it both runs and is paused.

    Raises:
        CommandError: it is asked for.
    """
    if args.has("running") and args.has("paused"):
        raise CommandError("--running and --paused are mutually exclusive")


SECURITY = flag("security-info", "with passwords")

COMMANDS = (
    Command(
        "managedsave",
        "keep a domain's memory for its next start, and end it",
        (DOMAIN, BYPASS, RUNNING, PAUSED, flag("verbose", "show how far it is")),
        _managed,
    ),
    Command(
        "managedsave-define", "change the document of kept memory", (DOMAIN, XML, RUNNING, PAUSED), _managed_define
    ),
    Command(
        "managedsave-dumpxml", "the document of kept memory", (DOMAIN, SECURITY, *document.PARTS), _managed_dumpxml
    ),
    Command("managedsave-remove", "drop a domain's kept memory", (DOMAIN,), _managed_remove),
    Command(
        "restore",
        "start a domain from saved memory",
        (
            FILE,
            BYPASS,
            value("xml", "file with another document"),
            RUNNING,
            PAUSED,
            flag("reset-nvram", "and make UEFI's variables anew"),
        ),
        _restore,
    ),
    Command(
        "save",
        "write a domain's memory to a file, and end it",
        (
            DOMAIN,
            data("file", "where to"),
            BYPASS,
            value("xml", "file with another document"),
            RUNNING,
            PAUSED,
            flag("verbose", "show how far it is"),
        ),
        _save,
    ),
    Command("save-image-define", "change the document of saved memory", (FILE, XML, RUNNING, PAUSED), _image_define),
    Command("save-image-dumpxml", "the document of saved memory", (FILE, SECURITY, *document.PARTS), _image_dumpxml),
)
