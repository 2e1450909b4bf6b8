"""Objects that the tools are told of, beside the real ones: what is wrong with them is told in the same words."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support import key_timing
from support.scene import compare, run
from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-storage-daemon")]
# The numbers of add_key(2).
_ADD_KEY = {"x86_64": 248, "aarch64": 217}
_SESSION = -3  # this process's session keyring


@pytest.mark.parametrize(
    "definition",
    [
        "main-loop,id=a",
        "main-loop,id=a,aio-max-batch=-1",
        "main-loop,id=a,aio-max-batch=x",
        "main-loop,id=a,thread-pool-min=5,thread-pool-max=3",
        "main-loop,id=a,thread-pool-max=0",
        "main-loop,id=a,thread-pool-max=9999999999",
        "main-loop,id=a,poll-max-ns=1",
        "iothread,id=a,poll-max-ns=x",
        "iothread,id=a,poll-max-ns=1",
        '{"qom-type": "main-loop", "id": "a", "aio-max-batch": "1"}',
        '{"qom-type": "main-loop", "id": "a", "aio-max-batch": true}',
        "secret_keyring,id=a",
        "secret_keyring,id=a,serial=0",
        "secret_keyring,id=a,serial=1",
        "secret_keyring,id=a,serial=-1",
        "secret_keyring,id=a,serial=x",
        "secret_keyring,id=a,serial=4294967296",
        "secret_keyring,id=a,serial=99,format=x",
        "secret_keyring,id=a,serial=99,foo=x",
        "pr-manager-helper,id=a",
        "pr-manager-helper,id=a,path=none",
        "pr-manager-helper,id=a,path=",
        "thread-context,id=a",
        "thread-context,id=a,foo=x",
        "tls-cipher-suites,id=a",
        "tls-cipher-suites,id=a,priority=NORMAL",
        "tls-cipher-suites,id=a,endpoint=x",
        "tls-cipher-suites,id=a,verify-peer=x",
        "tls-cipher-suites,id=a,foo=x",
        "tls-creds-x509,id=a,dir=/none,priority=BOGUS",
        "tls-creds-psk,id=a,foo=x",
        "tls-creds-anon,id=a,username=x",
        "tls-creds-anon,id=a,dir=/none,loaded=on",
        "tls-creds-x509,id=a,dir=/none,verify-peer=x",
        "tls-creds-x509,id=a,dir=/none,sanity-check=x",
        "tls-creds-x509,id=a,dir=/none,endpoint=x",
        "thread-context,id=a,cpu-affinity=0",
        "secret,id=a,data=x,loaded=off",
        "secret,id=a,data=x,loaded=x",
        "secret,id=a,data=x,file=y,format=z",
        '{"qom-type": "secret", "id": 3, "data": 5}',
        '{"qom-type": "secret", "id": "a", "data": 5}',
        "authz-list,id=a,policy=x",
        "authz-simple,id=a",
        "authz-list,id=a,rules=x",
        "authz-list,id=a,rules.0=x",
        "authz-list,id=a,rules.0.match=x",
        "authz-list,id=a,rules.0.match=x,rules.0.policy=allow,rules.0.formt=glob",
        "authz-list,id=a,rules.0.match=x,rules.0.policy=allow,rules.0.format=x",
        '{"qom-type": "authz-list", "id": "a", "rules": [{"match": 5, "policy": "allow"}]}',
        '{"qom-type": "authz-list", "id": "a", "rules": [{"match": "x", "policy": "deny", "formt": "glob"}]}',
        '{"qom-type": "authz-list", "id": "a", "rules": [5]}',
        "thread-context,id=a,cpu-affinity.0=x",
        "throttle-group,id=a,limits.iops-total=0x10",
        "throttle-group,id=a,x-iops-total.x=1",
        '{"qom-type": "throttle-group", "id": "a", "limits": {"iops-total": "1"}}',
        "secret,id=a,data=x,loaded.x=1",
        "secret,id.x=1,data=x",
        "tls-creds-x509,id=a,dir=/none,verify-peer.x=1",
        "authz-listfile,id=a,filename=none,refresh=x",
        "throttle-group,id=a,x-iops-total=x",
        "throttle-group,id=a,foo=1",
        '{"qom-type": "throttle-group", "id": "a", "x-iops-total": "1"}',
    ],
)
def test_an_object_is_refused_in_the_same_words(twins: Twins, definition: str) -> None:
    twins.truncate("disk", 1 << 20)
    twins.same(f"info -f raw --object '{definition}' disk")


def test_loops_of_a_daemon_have_ranges(tmp_path: Path) -> None:
    wrong: tuple[dict[str, object], ...] = (
        {"poll_max_ns": -1}, {"poll_grow": -1}, {"poll_shrink": "1"}, {"thread_pool_max": 0}, {"thread_pool_max": -1},
        {"thread_pool_min": 65}, {"thread_pool_min": 5, "thread_pool_max": 3}, {"aio_max_batch": -1}, {"x": 1},
        {"thread_pool_max": 1 << 31}, {"poll_max_ns": 1 << 63},
    )  # fmt: skip
    steps = [run("object-add", qom_type=kind, id="a", **how) for kind in ("iothread", "main-loop") for how in wrong]
    compare(tmp_path, [], [], steps)


def test_a_helper_for_reservations_is_there_that_listens(tmp_path: Path, twins: Twins) -> None:
    twins.truncate("disk", 1 << 20)
    path = tmp_path / "helper.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert (
            twins.run_ours(["info", "-f", "raw", "--object", f"pr-manager-helper,id=a,path={path}", "disk"]).code == 0
        )
    assert twins.same(f"info -f raw --object pr-manager-helper,id=a,path={path} disk").code == 1


@pytest.mark.parametrize(("text", "format"), [(b"secret", "raw"), (b"c2VjcmV0", "base64")])
def test_a_key_of_the_kernel_opens_an_image(tmp_path: Path, text: bytes, format: str) -> None:
    number = _ADD_KEY.get(platform.machine())
    if sys.platform != "linux" or number is None:
        pytest.skip("only Linux has keys")
    libc = ctypes.CDLL(None, use_errno=True)
    serial = libc.syscall(number, b"user", f"hostel-{os.getpid()}".encode(), text, len(text), _SESSION)
    if serial < 0:
        pytest.skip(f"this host gives no keys: {os.strerror(ctypes.get_errno())}")
    given = f"secret_keyring,id=k,serial={serial},format={format}"
    create = ["create", "-q", "-f", "luks", "--object", "secret,id=k,data=secret"]
    options = ["-o", "key-secret=k,iter-time=10", "disk", "1M"]
    key_timing.run(["qemu-img", *create, *options], cwd=tmp_path, timeout=120).check_returncode()
    image = "driver=luks,key-secret=k,file.filename=disk"
    for tool in (["qemu-io"], [sys.executable, "-m", "hostel", "qemu-io"]):
        command = [*tool, "--object", given, "--image-opts", "-c", "read 0 64k", image]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
