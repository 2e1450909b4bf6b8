"""Errors in libvirt's words: a code with its fixed beginning, and what the driver has to say.

``fault(ErrorCode.NO_DOMAIN, "no domain with matching name 'web1'")`` reads ``Domain not found: no domain with …``, as
libvirt's ``virErrorMsg()`` puts it together (``src/util/virerror.c``).
"""

from __future__ import annotations

from hostel.cause import sentence
from hostel.errors import ErrorCode, ErrorDomain, HostelError, VirtError
from hostel.errors.details import BEGINNINGS


def fault(code: ErrorCode, detail: str, domain: ErrorDomain = ErrorDomain.NONE) -> VirtError:
    """Build the error of ``code`` about ``detail``, which is one line."""
    return VirtError(code, BEGINNINGS.get(code, "%s") % detail, domain=domain)


def printable(text: str) -> str:
    r"""Write what would move a terminal's cursor as ``\xNN``: a name may come from an image, and forge anything."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )


def system_fault(
    error: OSError,
    doing: str,
    domain: ErrorDomain = ErrorDomain.NONE,
    *,
    path: str | None = None,
    removing: bool = False,
) -> VirtError:
    """The host refused: ``doing`` (``cannot create path '/x'``), the host's reason and what is behind it.

    Args:
        error: the refusal.
        doing: what was tried.
        domain: which part of the system speaks.
        path: the file it is about, where the error does not say: one that is open.
        removing: a file was to be removed or renamed, about which its directory decides.
    """
    if error.filename is None and path is not None and not isinstance(error, HostelError):
        error = OSError(error.errno, error.strerror, path)
    reason = printable(sentence(error, removing=removing))
    return VirtError(ErrorCode.SYSTEM_ERROR, f"{doing}: {reason}", domain=domain)
