"""Names and options of Ceph's images; no cluster is asked."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.block.driver import OpenMode
from hostel.block.options import OptionError
from hostel.block.protocols.rbd.driver import RbdDriver
from hostel.errors import BlockError


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rbd:p/i", {"pool": "p", "namespace": "", "image": "i"}),
        ("rbd:p/n/i@s", {"pool": "p", "namespace": "n", "image": "i", "snapshot": "s"}),
        ("rbd:p/i:id=me:conf=/a/b", {"pool": "p", "namespace": "", "image": "i", "user": "me", "conf": "/a/b"}),
        (
            "rbd:p/i@s:mon_host=h\\:1\\;k:key=a==",
            {
                "pool": "p",
                "namespace": "",
                "image": "i",
                "snapshot": "s",
                "=keyvalue-pairs": (("mon_host", "h:1;k"), ("key", "a==")),
            },
        ),
        ("rbd:p\\/q/i\\@j\\:k\\\\l", {"pool": "p/q", "namespace": "", "image": "i@j:k\\l"}),
        ("rbd:p/", {"pool": "p", "namespace": "", "image": ""}),
        ("rbd:p/i\\", {"pool": "p", "namespace": "", "image": "i\\"}),
        (
            "rbd:p/i:a=b=c:d=",
            {"pool": "p", "namespace": "", "image": "i", "=keyvalue-pairs": (("a", "b=c"), ("d", ""))},
        ),
    ],
)
def test_a_name_is_read_as_qemu_reads_it(name: str, options: dict[str, Any]) -> None:
    assert RbdDriver.parse_filename(name) == options


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rbd", "File name must start with 'rbd:'"),
        ("rbd:pool", "Pool name is required"),
        ("rbd:p/i:conf", "conf option conf has no value"),
        ("rbd:p/i:a=b:", "conf option  has no value"),
    ],
)
def test_what_is_no_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RbdDriver.parse_filename(name)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"colour": "red"}, "Parameter 'colour' is unexpected"),
        ({"server.0.host": "h"}, "Parameter 'server.0.port' is missing"),
        ({"server.0.host": "h", "server.0.colour": "red"}, "Parameter 'server.0.colour' is unexpected"),
        ({"auth-client-required.0": "cephy"}, "does not accept value 'cephy'"),
        ({"key-secret": "a", "password-secret": "b"}, "Legacy 'password-secret' clashes with 'key-secret'"),
        ({"key-secret": "nothing"}, "No secret with id 'nothing'"),
        ({"encrypt.key-secret": "a"}, "Parameter 'format' is missing"),
        ({"encrypt.format": "luks", "encrypt.key-secret": "nothing"}, "No secret with id 'nothing'"),
    ],
)
def test_options_are_checked_before_anybody_is_asked(more: dict[str, str], message: str) -> None:
    with pytest.raises(BlockError, match=message):
        RbdDriver.open({"pool": "p", "image": "i", **more}, OpenMode())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster_size": 5000}, "obj size needs to be power of 2"),
        ({"cluster_size": 2048}, "obj size too small"),
        ({"encrypt.format": "luks", "encrypt.key-secret": "a", "encrypt.cipher-alg": "des"}, "value 'des'"),
    ],
)
def test_options_of_a_new_image_are_checked_before_anybody_is_asked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RbdDriver.open({"pool": "p", "image": "i"}, OpenMode(read_only=False, options=options), creating=True)
