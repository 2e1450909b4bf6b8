"""Names of images, as they are shown."""

from __future__ import annotations

import pytest

from hostel.block import filename


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pass@host/x", "http://user@host/x"),
        ("http://user:p@ss@host/x", "http://user@host/x"),
        ("'http://a:b@c' and 'ftp://d:e@f'", "'http://a@c' and 'ftp://d@f'"),
        ("iscsi://user%pass@host:1/target/1", "iscsi://user@host:1/target/1"),
        ("rbd:pool/image:id=a:key=AQ\\:x==:mon_host=b", "rbd:pool/image:id=a:mon_host=b"),
        ("rbd:pool/image:key=AQ==", "rbd:pool/image"),
        ("driver=iscsi,password=a,,b,lun=1", "driver=iscsi,password=***,lun=1"),
        ("driver=raw,file.cookie=a;b,file.url=c", "driver=raw,file.cookie=***,file.url=c"),
        ('json:{"password": "a\\"b", "lun": 1}', 'json:{"password": "***", "lun": 1}'),
        ('json:{"file.password":"a"}', 'json:{"file.password":"***"}'),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert filename.without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://us%20er@host/x",
        "http://host:80/a@b:c",
        "http://[::1]:80/a@b",
        "driver=iscsi,password-secret=s0,lun=1",
        "rbd:pool/key=1@snapshot",
        "a@b:c@d",
        '{"url":"http://host:1","user":"a@b"}',
    ],
)
def test_what_is_no_secret_is_shown_as_it_is(text: str) -> None:
    assert filename.without_secrets(text) == text
