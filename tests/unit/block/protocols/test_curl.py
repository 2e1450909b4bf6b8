"""The protocols of libcurl, against servers that do what they should not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hostel.block import blockdev, graph, objects
from hostel.block.protocols.curl.driver import without_password
from hostel.errors import BlockError
from support.web import played_http, ranged

pytest.importorskip("pycurl")

CONTENT = random.Random(1).randbytes(700_001)


def test_what_is_read_is_what_lies_there_and_zeroes_beyond() -> None:
    with played_http(lambda headers: ranged(CONTENT, headers)) as (url, _), graph.open(url, "raw") as node:
        assert node.length == 700_416
        rng = random.Random(2)
        for _ in range(40):
            offset = rng.randrange(node.length)
            length = rng.randrange(1, node.length - offset + 1)
            assert node.read(offset, length) == CONTENT[offset : offset + length].ljust(length, b"\0")


def test_small_reads_in_a_row_are_one_request() -> None:
    with played_http(lambda headers: ranged(CONTENT, headers)) as (url, requests), graph.open(url, "raw") as node:
        for offset in range(0, 256 * 1024, 4096):
            node.read(offset, 4096)
        assert [request["range"] for request in requests] == ["bytes=0-0", f"bytes=0-{4096 + 256 * 1024 - 1}"]


def test_cookies_and_users_are_sent_and_not_shown() -> None:
    objects.add("cookie0", objects.Secret(b"token=hidden"))
    objects.add("password0", objects.Secret(b"hidden"))
    try:
        with played_http(lambda headers: ranged(CONTENT, headers)) as (url, requests):
            options = f'"url": "{url}", "cookie-secret": "cookie0", "username": "who", "password-secret": "password0"'
            with graph.open(f'json:{{"driver": "raw", "file": {{"driver": "http", {options}}}}}') as node:
                assert "hidden" not in node.filename
                assert '"cookie-secret": "cookie0"' in node.filename
            assert requests[0]["cookie"] == "token=hidden"
            assert requests[0]["authorization"] == "Basic d2hvOmhpZGRlbg=="
    finally:
        objects.clear()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://who:secret@host:80/a?b#c", "http://who@host:80/a?b#c"),
        ("http://who@host/a", "http://who@host/a"),
        ("https://host/a:b@c", "https://host/a:b@c"),
        ("ftp://a:b@c@[::1]/x", "ftp://a@[::1]/x"),
    ],
)
def test_a_password_in_a_url_is_left_out(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_transfer_that_is_cut_off_goes_on_where_it_was() -> None:
    def play(headers: dict[str, str]) -> bytes:
        answer = ranged(CONTENT, headers)
        return answer if len(answer) < 200_000 else answer[: len(answer) // 2]

    with played_http(play) as (url, requests), graph.open(url, "raw") as node:
        assert node.read(0, 600_000) == CONTENT[:600_000]
        assert len(requests) > 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": "200 OK", "headers": {"Content-Length": "700001"}}, "Server does not support 'range'"),
        ({"headers": {"Content-Range": None}}, "Server didn't report file size"),
        ({"headers": {"Content-Range": "bytes 0-0/*"}}, "Server didn't report file size"),
        ({"status": "404 Not Found", "body": b"x" * 100}, "The requested URL returned error: 404"),
        ({"status": "500 Oh"}, "The requested URL returned error: 500"),
    ],
)
def test_an_answer_that_tells_no_size_is_refused(answer: dict[str, Any], message: str) -> None:
    with (
        played_http(lambda headers: ranged(CONTENT, headers, **answer)) as (url, _),
        pytest.raises(BlockError, match=f"CURL: Error opening file: {message}"),
    ):
        graph.open(url, "raw")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"headers": {"Content-Range": "bytes 7-1030/700001"}}, "another range"),
        ({"headers": {"Content-Range": "bytes 0-1023/700000"}}, "has changed"),
        ({"headers": {"ETag": '"two"'}}, "has changed"),
        ({"headers": {"Content-Length": None}, "body": bytes(2_000_000)}, "more than it was asked for"),
        ({"status": "200 OK"}, "Server does not support 'range'"),
        ({"status": "403 Forbidden"}, "returned error: 403"),
        ({"body": b""}, "missing|remaining"),
    ],
)
def test_a_range_that_is_not_the_one_asked_for_is_an_error(answer: dict[str, Any], message: str) -> None:
    def play(headers: dict[str, str]) -> bytes:
        return ranged(CONTENT, headers, **({} if headers["range"] == "bytes=0-0" else dict(answer)))

    with played_http(play) as (url, _), graph.open(url, "raw") as node:
        with pytest.raises(BlockError, match=message) as caught:
            node.read(0, 1024)
        assert caught.value.errno == 5


def test_a_redirection_leaves_no_door_to_other_protocols(tmp_path: Any) -> None:
    (tmp_path / "disk").write_bytes(CONTENT)
    answer = f"HTTP/1.1 302 Found\r\nLocation: file://{tmp_path}/disk\r\n\r\n".encode()
    with (
        played_http(lambda headers: answer) as (url, _),
        pytest.raises(BlockError, match=r"CURL: Error opening file: .*[Pp]rotocol"),
    ):
        graph.open(url, "raw")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://host/x"}, r"cannot handle the URL 'ftp://host/x' \(does not start with 'http://'\)"),
        ({}, "requires an 'url' option"),
        ({"url": "http://host/x", "readahead": "100"}, "HTTP_READAHEAD_SIZE 100 is not a multiple of 512"),
        ({"url": "http://host/x", "timeout": "10001"}, "timeout parameter is too large or negative"),
        ({"url": "http://host/x", "cookie": "a", "cookie-secret": "b"}, "both cookie and cookie secret"),
        ({"url": "http://host/x", "cookies": "a"}, "doesn't support the option 'cookies'"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, str], message: str) -> None:
    given = {f"file.{name}": value for name, value in options.items()}
    with pytest.raises(BlockError, match=message):
        graph.open(blockdev.from_options({"driver": "raw", "file.driver": "http", **given}))


def test_nothing_is_written() -> None:
    with (
        played_http(lambda headers: ranged(CONTENT, headers)) as (url, _),
        pytest.raises(BlockError, match="curl driver does not support writes"),
    ):
        graph.open(url, "raw", read_only=False)
