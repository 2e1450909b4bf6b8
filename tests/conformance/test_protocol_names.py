"""Names, options and help of protocols, as far as no server is needed, beside real qemu-img."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("block-curl.so"),
    pytest.mark.requires_tool("block-ssh.so"),
    pytest.mark.requires_tool("block-iscsi.so"),
    pytest.mark.requires_tool("block-nfs.so"),
    pytest.mark.requires_tool("block-rbd.so"),
    pytest.mark.requires_tool("block-gluster.so"),
]

OURS = [sys.executable, "-m", "hostel"]
INFO = "info --image-opts driver="


def both(line: str) -> list[tuple[int, str, str]]:
    results = []
    for tool in (OURS, []):
        words = [*tool, "qemu-img", *line.split()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        results.append((done.returncode, done.stdout, done.stderr))
    return results


@pytest.mark.parametrize(
    "name",
    [
        "nbd://host",
        "nbd:unix:/socket",
        "iscsi://host/target/1",
        "nfs://host/export/file",
        "ssh://host/file",
        "rbd:pool/image",
        "gluster://host/volume/file",
        "gluster+unix:///volume/file?socket=/socket",
        "file:/nothing/here",
        "http://host/file",
        "ftp://host/file",
        "null-co://",
        "blkdebug::/nothing/here",
        "fat:/tmp",
        "nothing:here",
    ],
)
def test_a_new_image_takes_the_options_of_its_protocol(name: str) -> None:
    # Those of the format go before those of the same name.
    ours, theirs = both(f"create -f {'qcow2' if name.startswith('rbd') else 'raw'} -o help {name}")
    # A name of no protocol may be meant for a file: ours says how to write it then.
    assert (ours[:2], ours[2].splitlines()[:1]) == (theirs[:2], theirs[2].splitlines()[:1])


@pytest.mark.parametrize(
    "line",
    [
        "create -f raw -o nocow=on nfs://host/export/file 1M",
        "create -f raw http://host/file 1M",
        "create -f raw null-co:// 1M",
        "convert -O raw /etc/passwd null-co://",
        "create -f raw blkdebug::/nothing/here 1M",
        f"{INFO}nbd",
        f"{INFO}nbd,server.type=inet,server.host=127.0.0.1",
        f"{INFO}nbd,host=127.0.0.1,path=/x",
        f"{INFO}nbd,server.type=unix,server.path=/nothing,tls-creds=none",
        f"{INFO}ssh",
        f"{INFO}ssh,host=127.0.0.1",
        f"{INFO}ssh,host=127.0.0.1,path=/x,port=1,host-key-check.mode=hash",
        f"{INFO}ssh,host=127.0.0.1,path=/x,port=1,host-key-check.mode=hash,host-key-check.type=md5",
        f"{INFO}ssh,host=127.0.0.1,path=/x,port=1,host-key-check.mode=hash,host-key-check.type=md4,"
        "host-key-check.hash=aa",
        "info ssh://",
        "info ssh://host",
        "info ssh://127.0.0.1:1/x?host_key_check=maybe",
        f"{INFO}iscsi",
        f"{INFO}iscsi,transport=tcp,portal=127.0.0.1:1,target=t,user=x",
        f"{INFO}iscsi,transport=tcp,portal=127.0.0.1:1,target=t,user=x,password-secret=nothing",
        f"{INFO}nfs",
        f"{INFO}nfs,server.type=inet,server.host=h,path=x",
        f"{INFO}nfs,server.type=unix,server.host=h,path=/x",
        f"{INFO}null-co",
        f"{INFO}null-co,size=5M,read-zeroes=on",
        f"{INFO}null-co,latency-ns=-1",
        "info null-aio://",
        "info null-co:x",
        "info host_device:/dev/null",
        "info host_device:/etc/passwd",
        "info host_device:",
        "info host_cdrom:/nothing",
        "convert -O raw host_device:/etc/passwd /nothing/here",
        f"{INFO}host_device",
        f"{INFO}host_device,filename=/etc/passwd",
        f"{INFO}raw,file.filename=/etc/passwd,detect-zeroes=maybe",
        f"{INFO}raw,file.filename=/etc/passwd,discard=maybe",
        f"{INFO}raw,file.filename=/etc/passwd,file.aio=maybe",
        f"{INFO}raw,file.filename=/etc/passwd,file.locking=maybe",
        f"{INFO}raw,file.filename=/etc/passwd,cache.direct=maybe",
        "info --output=json blkdebug::/etc/passwd",
        "info blkverify:/etc/passwd:/etc/passwd",
        f"{INFO}blkdebug,image.filename=/etc/passwd",
        f"{INFO}raw,file.driver=blkdebug,file.image.filename=/etc/passwd",
        f"{INFO}preallocate,file.driver=file,file.filename=/etc/passwd",
        f"{INFO}throttle,throttle-group=x,file.driver=file,file.filename=/etc/passwd",
        f"{INFO}quorum,vote-threshold=2,children.0.driver=file,children.0.filename=/etc/passwd,"
        "children.1.driver=file,children.1.filename=/etc/passwd",
        'info json:{"driver":"quorum","vote-threshold":1,"children":[{"driver":"file","filename":"/etc/passwd"}]}',
    ],
)
def test_tools_agree(line: str) -> None:
    ours, theirs = both(line)
    assert ours == theirs


@pytest.mark.parametrize(
    "line",
    [
        "info http://me:hidden@127.0.0.1:1/x",
        "info iscsi://me%hidden@127.0.0.1:1/target/1",
        "info rbd:pool/image:conf=/nothing:key=hidden",
        f"{INFO}iscsi,transport=tcp,portal=127.0.0.1:1,target=t,user=me,password=hidden",
        f"{INFO}raw,offset=512,file.driver=http,file.url=http://me:hidden@127.0.0.1:1/x",
        "create -f qcow2 iscsi://me%hidden@127.0.0.1:1/target/1 1M",
        "create -f qcow2 -b http://me:hidden@127.0.0.1:1/x -F raw /nothing/here",
        "create -f qcow2 -u -b http://me:hidden@127.0.0.1:1/x -F raw /nothing/here 1M",
        "convert -O raw http://me:hidden@127.0.0.1:1/x /nothing/here",
        "compare ftp://me:hidden@127.0.0.1:1/x /etc/passwd",
    ],
)
def test_no_password_is_printed(line: str) -> None:
    done = subprocess.run([*OURS, "qemu-img", *line.split()], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "hidden" not in done.stdout + done.stderr
