"""Image names: a path, or ``protocol:…``; and names relative to the image that holds them."""

from __future__ import annotations

import os
import re

_IN_SCHEMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+._-"
# Schemes of which a URL's path is one of files in directories.
_PATHS = frozenset(
    {"ftp", "ftps", "gluster", "gluster+rdma", "gluster+tcp", "gluster+unix", "http", "https", "nfs", "ssh", "tftp"}
)

# What proves who we are, in a URL, in an rbd: name and among options: patterns, compiled where they are needed.
_SECRETS = (
    (r"(?<=iscsi://)([^\s/@%'\"]*)%[^\s/'\"]*(?=@)", r"\1"),
    (r"(?<=://)([^\s/@:'\"]*):[^\s/'\"]*(?=@)", r"\1"),
    (r"(rbd:(?:[^\s'\\]|\\.)*?):key=(?:[^\s:'\\]|\\.)*", r"\1"),
    (r"((?:^|[\s,'.])(?:password|cookie)=)(?:[^,'\n]|,,)*", r"\1***"),
    (r"""("(?:[\w.]*\.)?(?:password|cookie)": ?")(?:[^"\\]|\\.)*""", r"\1***"),
)
_SIGNS = ("@", "password", "cookie", ":key=")


def without_secrets(text: str) -> str:
    """A text in which the names and options of images tell no password, key or cookie."""
    if any(sign in text for sign in _SIGNS):
        for pattern, shown in _SECRETS:
            text = re.sub(pattern, shown, text)
    return text


class Name(str):
    """A name among options that may begin with a protocol, as one that stands alone; other text there is a path."""

    __slots__ = ()


def protocol(name: str) -> str | None:
    """The protocol prefix of a name, or None for a plain path (``dir/a:b`` and ``./a:b`` are paths)."""
    scheme, colon, _ = name.partition(":")
    is_one = colon and scheme.isascii() and scheme[:1].isalpha() and not scheme.strip(_IN_SCHEMES)
    return scheme if is_one else None


def of_path(path: str) -> str:
    """The name of a path, also of one that looks like a protocol's name."""
    return path if protocol(path) is None else f"./{path}"


def has_directory(holder: str) -> bool:
    """Whether names can be relative to an image: to a file of this host, or to a URL that ends in a path."""
    scheme = protocol(holder)
    return scheme in (None, "file") or (scheme in _PATHS and holder.startswith(f"{scheme}://"))


def resolve_backing(name: str, holder: str) -> str | None:
    """As :func:`resolve`; None for a relative path in an image that has no directory."""
    if protocol(name) is None and not os.path.isabs(name) and not has_directory(holder):
        return None
    return resolve(name, holder)


def resolve(name: str, holder: str) -> str:
    """The name of a backing or data file as seen from where we run; relative names start at ``holder``'s directory.

    Where the holder has none the name is left as it is.
    """
    if protocol(name) is not None or os.path.isabs(name) or not name or not has_directory(holder):
        return name
    scheme = protocol(holder)
    if scheme in _PATHS:
        url, mark, query = holder.partition("?")
        place, slash, path = url.removeprefix(f"{scheme}://").partition("/")
        found = f"{scheme}://{place}/{os.path.join(os.path.dirname(path) if slash else '', name)}"
        # There it says who we are, or who the host is; elsewhere it is the file's own.
        return found + mark + query if scheme in ("gluster+unix", "nfs", "ssh") else found
    base = holder.removeprefix("file:") if scheme == "file" else holder
    return os.path.join(os.path.dirname(of_path(base)), name)
