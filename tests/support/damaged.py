"""Documents with something wrong in them, as trees and as bytes."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from copy import deepcopy

# Ends of ranges, other digits, ends of lines, and what commands take for options.
VALUES = (
    "", " ", "0", "-1", "1", "65536", "4294967295", "4294967296", "18446744073709551615", "18446744073709551616",
    "9" * 5000, "0" * 5000, "1.5", "1e9", "0x", "0x10", "0xfffffffff", "1_0", "+1", "\u00b2", "\u0661", "\u0660x1",
    "\u2167", "nan", "yes", "no", "on", "off", "none", "auto", "-o", "a\nb", "a\rb", "a\tb", "a'b\"c&<>", "/", "//",
    "..", "../../etc", "/a/../..", "a" * 300, "\u00e9", "\U0001f600", "\x7f", "\ufeff", "0.0.0.0", "255.255.255.255",
    "192.168.1.1", "192.168.1.300", "::", "::1", "fe80::1%eth0", "2001:db8::1", "::ffff:1.2.3.4", "1.2.3.4/33",
    "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52:54:00", "01:00:5e:00:00:01", "00000000-0000-0000-0000-000000000000",
    "0-", "-0", "0-4,^2", "1-99999999999", "bytes", "KiB", "zib", "2022-02-30", "256", "0000:00:1f.7", "x" * 64,
)  # fmt: skip


def damaged(document: str, others: Sequence[str], rng: random.Random) -> str:
    """A document with one to four changes."""
    if rng.random() < 0.1:
        return _cut(document, rng)
    root = ET.fromstring(document)
    for _ in range(rng.randint(1, 4)):
        rng.choice(_CHANGES)(root, others, rng)
    return ET.tostring(root, encoding="unicode")


def _cut(document: str, rng: random.Random) -> str:
    start = rng.randrange(len(document))
    return document[:start] + rng.choice(("", "<", ">", "&", '"', "\0", "&#0;", "<!--", "]]>")) + document[start + 1 :]


def _value(root: ET.Element, others: Sequence[str], rng: random.Random) -> None:
    element = rng.choice(list(root.iter()))
    names = list(element.attrib)
    if names and rng.random() < 0.8:
        element.set(rng.choice(names), rng.choice(VALUES))
    elif not len(element):
        element.text = rng.choice(VALUES)


def _remove(root: ET.Element, others: Sequence[str], rng: random.Random) -> None:
    element = rng.choice(list(root.iter()))
    if element.attrib and rng.random() < 0.5:
        del element.attrib[rng.choice(list(element.attrib))]
    elif len(element):
        element.remove(rng.choice(list(element)))


def _repeat(root: ET.Element, others: Sequence[str], rng: random.Random) -> None:
    parent = rng.choice([element for element in root.iter() if len(element)] or [root])
    if len(parent):
        parent.insert(rng.randint(0, len(parent)), deepcopy(rng.choice(list(parent))))


def _bring(root: ET.Element, others: Sequence[str], rng: random.Random) -> None:
    """Something of another document, where it may or may not belong."""
    found = list(ET.fromstring(rng.choice(others)).iter())
    rng.choice(list(root.iter())).append(deepcopy(rng.choice(found)))


def _exchange(root: ET.Element, others: Sequence[str], rng: random.Random) -> None:
    """An attribute's value in another document."""
    found = [item for element in ET.fromstring(rng.choice(others)).iter() for item in element.items()]
    if found:
        rng.choice(list(root.iter())).set(*rng.choice(found))


_CHANGES: tuple[Callable[[ET.Element, Sequence[str], random.Random], None], ...] = (
    _value,
    _value,
    _value,
    _remove,
    _repeat,
    _bring,
    _exchange,
)
