"""The daemon against clients that do not behave, and against many of them."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from hostel.daemon.config import Rule
from hostel.daemon.server import Daemon
from hostel.errors import ErrorCode, VirtError
from hostel.wire.rpc import keepalive
from hostel.wire.rpc.connection import Reply, StreamData, StreamEnd
from hostel.wire.rpc.packet import HEADER, Type, frame
from hostel.wire.rpc.programs import REMOTE
from support import hosteld
from support.hosteld import RawClient

DOMAIN = "<domain type='test'><name>{}</name><memory>1024</memory><os><type>hvm</type></os></domain>"


def test_call_before_opening_is_refused(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        with pytest.raises(VirtError, match="connection not open"):
            client.call("connect_get_type")
        assert client.call("auth_list") == ([0],)
        assert client.open().call("connect_get_type") == ("TEST",)


def test_calls_of_one_client_do_not_hold_up_those_of_others(tmp_path: Path) -> None:
    """Two ask while a third has sent very many calls at once: one whose turn comes before it, and one after."""
    many = 2000  # which fit into the buffers of a socket, and take longer than a turn
    with (
        hosteld.process(directory=tmp_path) as served,
        RawClient(served.socket) as first,
        RawClient(served.socket) as busy,
        RawClient(served.socket) as last,
    ):
        for client in (first, busy, last):
            client.open()
        (domain,) = busy.call("domain_lookup_by_name", "test")
        frames = [
            busy.machine.call(REMOTE, REMOTE.by_name["domain_set_memory"], (domain, 1024 + number))
            for number in range(many)
        ]
        served.process.send_signal(signal.SIGSTOP)
        busy.socket.sendall(b"".join(data for _, data in frames))
        asked = [(client, client.begin("domain_get_info", domain)) for client in (first, last)]
        served.process.send_signal(signal.SIGCONT)
        for client, call in asked:
            reply = client.reply_to(call)
            assert reply.result[2] < 1024 + many - 1, "it was answered after all of the other's calls"
        for call, _ in frames:
            assert busy.reply_to(call).error is None
        assert busy.call("domain_get_info", domain)[2] == 1024 + many - 1


def test_answers_that_nobody_takes_are_not_made(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path) as daemon, RawClient(tmp_path / "s") as client:
        client.open()
        text = DOMAIN.format("long").replace("<memory>", f"<description>{'x' * 50_000}</description><memory>")
        (domain,) = client.call("domain_define_xml", text)
        procedure = REMOTE.by_name["domain_get_xml_desc"]
        frames = [client.machine.call(REMOTE, procedure, (domain, 0)) for _ in range(1000)]
        client.socket.sendall(b"".join(data for _, data in frames))
        (served,) = daemon._clients.values()
        most = 0
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            most = max(most, served.channel.queued)
            time.sleep(0.01)
        assert 0 < most < 16 << 20
        for call, _ in frames:
            assert "x" * 50_000 in client.reply_to(call).result[0]


def test_second_opening_is_refused(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        client.open()
        with pytest.raises(VirtError, match="connection already open"):
            client.open()


def test_flags_that_are_the_clients_own_do_not_hinder_opening(tmp_path: Path) -> None:
    """What starts its daemon by itself says so in a flag, and its other half is none of ours."""
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        assert client.open(flags=4).call("connect_get_type") == ("TEST",)


def test_unknown_program_version_and_procedure_are_told(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        for data, reason in (
            (frame(99, 1, Type.CALL, 1, 0), "Cannot find program 99 version 1"),
            (HEADER.pack(28, REMOTE.number, 2, 1, 0, 1, 0), "Cannot find program 536903814 version 2"),
            (frame(REMOTE.number, 9999, Type.CALL, 1, 0), "unknown procedure: 9999"),
            (frame(REMOTE.number, 107, Type.CALL, 1, 0), "unknown procedure: 107"),  # an event
            (frame(REMOTE.number, 3, Type.CALL, 1, 1), "Unexpected message status 1"),
            (frame(REMOTE.number, 1, Type.CALL, 1, 0, b"\0"), "Unable to decode message payload"),
            (frame(REMOTE.number, 3, Type.CALL, 1, 0, bytes(4)), "4 bytes are left over"),
        ):
            client.machine._waiting[1] = REMOTE.by_name["connect_get_type"]
            client.socket.sendall(data)
            answer = client.socket.recv(1 << 16)
            assert reason.encode() in answer, reason
        assert client.open().call("connect_get_type") == ("TEST",)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 2**32 - 1),
        struct.pack(">I", 0) + bytes(100),
        struct.pack(">I", 70_000) + bytes(100),  # too long for somebody who has opened nothing
        frame(REMOTE.number, 1, Type.REPLY, 1, 0),
        frame(REMOTE.number, 1, Type.MESSAGE, 1, 0),
        frame(REMOTE.number, 1, 77, 1, 0),
        frame(REMOTE.number, 209, Type.STREAM, 1, 9),
        frame(REMOTE.number, 209, Type.STREAM_HOLE, 1, 2, b"abc"),
        HEADER.pack(32, REMOTE.number, 1, 1, Type.CALL_WITH_FDS, 1, 0) + struct.pack(">I", 1000),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" + bytes(200),
    ],
)
def test_peer_that_speaks_something_else_is_cut_off_and_others_are_not(tmp_path: Path, data: bytes) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as good, RawClient(tmp_path / "s") as bad:
        good.open()
        bad.socket.sendall(data)
        assert bad.is_cut_off()
        assert good.call("connect_get_type") == ("TEST",)


def test_stream_packets_of_no_stream_are_passed_over(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        client.open()
        client.socket.sendall(frame(REMOTE.number, 209, Type.STREAM, 5, 2, b"data"))
        client.socket.sendall(frame(REMOTE.number, 209, Type.STREAM, 5, 0))
        assert client.call("connect_get_type") == ("TEST",)


def test_ping_is_answered(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        client.socket.sendall(keepalive.ping)
        assert client.socket.recv(1000) == keepalive.pong


def test_silent_client_is_asked_and_cut_off(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path, keepalive_interval=1, keepalive_count=1), RawClient(tmp_path / "s") as client:
        client.call("connect_supports_feature", 10)
        client.open()
        assert client.socket.recv(1000) == keepalive.ping
        client.socket.sendall(keepalive.pong)
        assert client.socket.recv(1000) == keepalive.ping
        assert client.is_cut_off()


def test_client_that_cannot_answer_is_not_asked(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path, keepalive_interval=1, keepalive_count=1), RawClient(tmp_path / "s") as client:
        client.open()
        time.sleep(2.5)
        assert client.call("connect_get_type") == ("TEST",)


def test_connection_that_opens_nothing_is_ended(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path, unopened_seconds=0.5), RawClient(tmp_path / "s") as client:
        assert client.is_cut_off()


def test_thousand_half_open_connections_keep_nobody_out(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    half_open = []
    try:
        with hosteld.thread(tmp_path) as daemon, RawClient(tmp_path / "s") as early:
            early.open()
            for _ in range(1000):
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(str(tmp_path / "s"))
                sock.sendall(b"\0\0\0")
                half_open.append(sock)
            with RawClient(tmp_path / "s") as late:
                assert late.open().call("connect_get_type") == ("TEST",)
            assert early.call("connect_get_type") == ("TEST",)
            assert len(daemon._clients) <= daemon.config.limits.unopened + 2
    finally:
        for sock in half_open:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_beyond_the_limit_wait_for_their_turn(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path, clients=1), RawClient(tmp_path / "s") as first:
        first.open()
        with RawClient(tmp_path / "s") as second:
            second.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                second.call("auth_list")
            first.socket.close()
            second.socket.settimeout(20)
            second.reply_to(second.begin("auth_list"))


def test_client_that_reads_nothing_is_not_read_on(tmp_path: Path) -> None:
    """Its calls stay in the kernel's buffers, and not in our memory."""
    with hosteld.thread(tmp_path) as daemon, RawClient(tmp_path / "s") as slow, RawClient(tmp_path / "s") as other:
        slow.open()
        other.open()
        _, call = slow.machine.call(REMOTE, REMOTE.by_name["connect_get_capabilities"], ())
        slow.socket.settimeout(2)
        sent = 0
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                slow.socket.sendall(call * 1000)
                sent += 1
        assert sent < 1000
        deadline = time.monotonic() + 60
        while not (queued := [client.channel.queued for client in daemon._clients.values() if client.channel.queued]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert max(queued) < 32 << 20
        other.socket.settimeout(120)  # all that has been read of the other one is answered before
        assert other.call("connect_get_type") == ("TEST",)


def test_read_only_client_changes_nothing(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s-ro") as client:
        client.open()
        (domain,) = client.call("domain_lookup_by_name", "test")
        assert client.call("domain_get_state", domain, 0) == (1, 0)
        for name, *arguments in (
            ("domain_destroy", domain),
            ("domain_define_xml", DOMAIN.format("x")),
            ("domain_get_xml_desc", domain, 1),
            ("storage_vol_upload", ("p", "v", "k"), 0, 0, 0),
            ("domain_set_scheduler_parameters", domain, []),
        ):
            with pytest.raises(VirtError, match="operation forbidden: read only access prevents") as caught:
                client.call(name, *arguments)
            assert caught.value.code is ErrorCode.OPERATION_DENIED


def test_rules_say_who_may_do_what(tmp_path: Path) -> None:
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    rules = (
        Rule(user, ("connect.*",)),
        Rule(user, ("domain.getattr", "domain.read"), "t*"),
        Rule("somebody-else", ("*.*",)),
    )
    with hosteld.thread(tmp_path, rules=rules), RawClient(tmp_path / "s") as client:
        client.open()
        (domain,) = client.call("domain_lookup_by_name", "test")
        assert client.call("domain_get_state", domain, 0) == (1, 0)
        with pytest.raises(VirtError, match="does not have the UUID"):
            client.call("domain_get_state", domain._replace(name="t"), 0)
        with pytest.raises(VirtError, match="access denied: 'domain' 'write'"):
            client.call("domain_define_xml", DOMAIN.format("t2"))
        with pytest.raises(VirtError, match="access denied: 'domain' 'stop' permission") as caught:
            client.call("domain_destroy", domain)
        assert caught.value.code is ErrorCode.ACCESS_DENIED
        assert client.call("connect_num_of_domains") == (1,)
        assert client.call("connect_num_of_networks") == (0,)  # which are there, and not for this user


def test_state_of_the_test_driver_lasts_as_long_as_somebody_is_there(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as one:
        one.open()
        one.call("domain_define_xml", DOMAIN.format("shared"))
        with RawClient(tmp_path / "s") as two:
            assert len(two.open().call("connect_list_all_domains", 1, 0)[0]) == 2
        one.socket.close()
        deadline = time.monotonic() + 60
        while True:
            with RawClient(tmp_path / "s") as three:
                if len(three.open().call("connect_list_all_domains", 1, 0)[0]) == 1:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_two_clients_that_change_the_same_domain_take_turns(tmp_path: Path) -> None:
    outcomes: list[bool] = []

    def start_and_stop() -> None:
        with RawClient(tmp_path / "s") as client:
            client.open()
            (domain,) = client.call("domain_lookup_by_name", "shared")
            for name in ("domain_create", "domain_destroy") * 100:
                try:
                    client.call(name, domain)
                    outcomes.append(True)
                except VirtError:
                    outcomes.append(False)

    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        client.open()
        client.call("domain_define_xml", DOMAIN.format("shared"))
        threads = [threading.Thread(target=start_and_stop) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(outcomes) == 800
        assert any(outcomes)
        (domain,) = client.call("domain_lookup_by_name", "shared")
        assert client.call("domain_get_state", domain, 0)[0] in (1, 5)


def test_thousand_lives_of_a_domain_leave_nothing_behind(tmp_path: Path) -> None:
    def lives(count: int, name: str) -> None:
        with RawClient(tmp_path / "s") as client:
            client.open()
            for _ in range(count):
                (domain,) = client.call("domain_define_xml", DOMAIN.format(name))
                client.call("domain_create", domain)
                client.call("domain_destroy", domain)
                client.call("domain_undefine", domain)

    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        client.open()
        lives(100, "warm")
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        threads = [threading.Thread(target=lives, args=(125, f"d{number}")) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert client.call("connect_num_of_defined_domains") == (0,)
        deadline = time.monotonic() + 60
        while (len(os.listdir("/proc/self/fd")), threading.active_count() - 1) > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) <= before[0]
        assert threading.active_count() <= before[1] + 6  # workers that wait for work


def test_upload_and_download_with_an_error_on_each_side(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        client.open()
        reply = client.reply_to(client.begin("storage_vol_download", ("default-pool", "no", "/no"), 0, 0, 0))
        assert reply.error is not None
        reply = client.reply_to(client.begin("storage_vol_upload", ("default-pool", "no", "/no"), 0, 0, 0))
        assert reply.error is not None


def test_stop_ends_connections(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path) as daemon, RawClient(tmp_path / "s") as client:
        client.open()
        daemon.stop("test")
        with pytest.raises(EOFError):
            client.event()


def test_an_invented_host_is_heard_of_after_the_last_client_of_the_one_before(tmp_path: Path) -> None:
    deadline = time.monotonic() + 60
    opened = 0
    with hosteld.thread(tmp_path):
        while opened < 2:
            assert time.monotonic() < deadline
            with RawClient(tmp_path / "s") as client:
                client.open()
                if len(client.call("connect_list_all_domains", 1, 0)[0]) > 1:
                    continue  # the client before has not left yet
                opened += 1
                (number,) = client.call("connect_domain_event_callback_register_any", 0, None)
                client.call("domain_define_xml", DOMAIN.format("told"))
                message = client.message()
                assert (message.procedure.name, message.values[0]) == ("domain_event_callback_lifecycle", number)


def test_event_comes_before_nothing_that_was_asked_later(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path), RawClient(tmp_path / "s") as client:
        client.open("qemu:///session")
        (number,) = client.call("connect_storage_pool_event_register_any", 0, None)
        xml = f"<pool type='dir'><name>e</name><target><path>{tmp_path}/pool</path></target></pool>"
        (pool,) = client.call("storage_pool_define_xml", xml, 0)
        message = client.message()
        assert message.procedure.name == "storage_pool_event_lifecycle"
        assert message.values == (number, pool, 0, 0)
        client.call("connect_storage_pool_event_deregister_any", number)
        with pytest.raises(VirtError, match=f"storage pool event callback {number} not registered"):
            client.call("connect_storage_pool_event_deregister_any", number)


def test_streams_of_a_volume(tmp_path: Path) -> None:
    with hosteld.thread(tmp_path, streams=2), RawClient(tmp_path / "s") as client:
        client.open("qemu:///session")
        xml = f"<pool type='dir'><name>p</name><target><path>{tmp_path}/pool</path></target></pool>"
        (pool,) = client.call("storage_pool_create_xml", xml, 1)
        (volume,) = client.call(
            "storage_vol_create_xml", pool, "<volume><name>v</name><capacity>999</capacity></volume>", 0
        )
        call = client.begin("storage_vol_upload", volume, 0, 0, 0)
        assert client.reply_to(call).error is None
        frames = client.frames(call)
        client.socket.sendall(
            frames.data_header(5) + b"hello" + frames.hole(10) + frames.data_header(1) + b"!" + frames.finish()
        )
        assert client.event() == StreamEnd(call.serial)
        call = client.begin("storage_vol_download", volume, 0, 16, 0)
        assert client.reply_to(call) == Reply(call.serial, ())
        assert client.event() == StreamData(call.serial, b"hello" + bytes(10) + b"!")
        assert client.event() == StreamData(call.serial, b"")
        client.socket.sendall(client.frames(call).finish())
        assert client.event() == StreamEnd(call.serial)
        for name in "ab":
            xml = f"<volume><name>{name}</name><capacity>9</capacity></volume>"
            (other,) = client.call("storage_vol_create_xml", pool, xml, 0)
            assert client.reply_to(client.begin("storage_vol_upload", other, 0, 0, 0)).error is None
        refused = client.reply_to(client.begin("storage_vol_upload", volume, 0, 0, 0)).error
        assert refused is not None and refused.code is ErrorCode.RESOURCE_BUSY


def test_listing_starts_with_the_sockets_that_were_inherited(tmp_path: Path) -> None:
    from hostel.daemon.config import Config
    from hostel.drivers.store import Directories

    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "given-ro"))
    sock.listen()
    daemon = Daemon(Config(tmp_path / "s"), Directories.under(tmp_path / "state"), lambda message, **fields: None)
    daemon.listen([sock])
    runner = threading.Thread(target=daemon.run)
    runner.start()
    try:
        assert not (tmp_path / "s").exists()
        with RawClient(tmp_path / "given-ro") as client:
            client.open()
            with pytest.raises(VirtError, match="read only"):
                client.call("domain_define_xml", DOMAIN.format("x"))
    finally:
        daemon.stop("test")
        runner.join(30)
    assert (tmp_path / "given-ro").exists()


def _call_with(client: RawClient, name: str, files: int, *arguments: object) -> bytes:
    """A call's bytes, up to which its descriptors follow."""
    _, data = client.machine.call(REMOTE, REMOTE.by_name[name], arguments, files)
    return data


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "behaviour", ["not let in", "unknown", "not whole", "broken after", "too long after", "no call"]
)
def test_files_of_calls_that_nobody_answers_are_closed(tmp_path: Path, behaviour: str) -> None:
    """A client that nobody has let in could otherwise use up all descriptors of the daemon."""
    domain = ("test", bytes(16), -1)
    with hosteld.thread(tmp_path), open(os.devnull, "rb") as file:
        before = _open_files()
        for _ in range(5):
            with RawClient(tmp_path / "s") as client:
                data = _call_with(client, "domain_create_with_files", 3, domain, 0)
                rest = b""
                if behaviour == "unknown":
                    data = data[:12] + struct.pack(">i", 9999) + data[16:]
                elif behaviour == "no call":
                    data = data[:16] + struct.pack(">i", int(Type.REPLY_WITH_FDS)) + data[20:]
                elif behaviour == "broken after":
                    rest = frame(REMOTE.number, 1, Type.MESSAGE, 1, 0, b"")
                elif behaviour == "too long after":
                    rest = b"\xff" * HEADER.size
                files = 2 if behaviour == "not whole" else 3
                # All in one piece, so that what comes after is known when the call is.
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{files}i", *[file.fileno()] * files))]
                client.socket.sendmsg([data + bytes(files) + rest], ancillary)
                if behaviour in ("not let in", "unknown"):
                    assert client.socket.recv(100)  # an error
                elif behaviour != "not whole":
                    with pytest.raises((EOFError, ConnectionResetError)):
                        client.event()
        until = time.monotonic() + 20
        while _open_files() > before and time.monotonic() < until:
            time.sleep(0.01)
        assert _open_files() <= before
