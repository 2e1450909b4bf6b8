"""qemu-img's command line: options, operands, objects, descriptions of images, and their errors."""

from __future__ import annotations

import shlex

import pytest

from support.twins import Twins

pytestmark = pytest.mark.requires_tool("qemu-img")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "foo",
        "-x",
        "--nonsense",
        "--trace",
        "-T",
        "info",
        "info -z",
        "info --zz",
        "info --f a",
        "info -f",
        "info --format",
        "info a b",
        "info --output=xx a",
        "info --force-share=3 a",
        "info --image-opts= a",
        "info -- -f",
        "check",
        "check -r foo a",
        "check -T foo a",
        "map",
        "map -s x a",
        "map --start-offset=-1 a",
        "map --max=9E a",
        "snapshot",
        "snapshot -l -c x a",
        "resize",
        "resize a",
        "resize a b c",
        "resize --preallocation=foo a 1M",
        "create",
        "create a 3X",
        "create a 9E",
        "create a 1.5",
        "create a 1M 2",
        "create a 1M -o ''",
        "create a 1M -o ,a",
        "create a 1M -o a,",
        "measure",
        "measure a b",
        "measure --size 1 a",
        "measure -f raw --size 1",
        "measure --size x",
        "measure --output=foo",
    ],
)
def test_misuse_is_reported_as_qemu_does(twins: Twins, command: str) -> None:
    twins.same(command)


@pytest.mark.parametrize(
    "command",
    [
        "info -fraw a",
        "info --fo raw a",
        "info --format=raw --out json a",
        "info a -f raw",
        "info -U a -f raw --",
        "info -Ufraw a",
        "snapshot -ql a",
    ],
)
def test_options_are_read_as_getopt_reads_them(twins: Twins, command: str) -> None:
    twins.truncate("a", 1 << 20)
    twins.same(command)


@pytest.mark.parametrize(
    "object_",
    [
        "",
        "foo",
        "foo,id=x",
        "secret",
        "secret,id=x",
        "secret,id=x,data=1,foo=2",
        "secret,id=x,data=1,file=y",
        "secret,id=x,data=1,format=foo",
        "secret,id=x,data=???,format=base64",
        "secret,id=x,data=MQ==,format=base64",
        "qom-type=secret,id=x,data=1",
        "authz-simple,id=x,identity=a",
        '{"qom-type":"secret","id":"x","data":"1"}',
        '{"qom-type":"secret","id":"x"',
        '{"id":"x"}',
        '{"qom-type":"secret","id":"x","data":1}',
        "secret,id=x,data",
        "secret,id=1x,data=1",
        "secret,id=x,data=1,loaded=on",
        "secret,id=x,data=abc,format=base64",
        "secret,id=x,file=missing",
        "memory-backend-ram,id=x,size=1M",
        "iothread,id=x",
        "throttle-group,id=x,x-iops-total=y",
        "secret,help",
        "throttle-group,help",
        "tls-creds-psk,help",
        "qom-type=thread-context,?",
    ],
)
def test_objects_are_checked(twins: Twins, object_: str) -> None:
    twins.truncate("a", 1 << 20)
    twins.same(f"info -f raw --object '{object_}' a")


@pytest.mark.parametrize(
    "command",
    [
        "info --object foo --output=xx",
        "info --object secret,help --nonsense",
        "compare --object foo a a",
        "compare --object secret,help --nonsense",
        "create --object foo -f bar",
    ],
)
def test_objects_are_made_where_their_option_is_met(twins: Twins, command: str) -> None:
    twins.same(command)


@pytest.mark.parametrize(
    "size", ["0.1M", "-0", ".5M", "1 ", "+1.5k", "1.k", "1.0000000001M", "0x10", "18446744073709551616"]
)
def test_sizes_are_read_as_qemu_reads_them(twins: Twins, size: str) -> None:
    twins.truncate("a", 1 << 20)
    twins.same(f"map -f raw --output=json -s '{size}' a")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "json:",
        'json:{"driver":}',
        "json:{a: 1}",
        'json:{"driver":"foo","file.filename":"a"}',
        'json:{"driver":"qcow2","lazy-refcounts":true,"file":{"driver":"file","filename":"a"}}',
        "file:a",
    ],
)
def test_names_are_understood_beside_a_format(twins: Twins, name: str) -> None:
    twins.truncate("a", 1 << 20)
    twins.same(f"map -f raw '{name}'")
    twins.same(f"info -f raw '{name}'")


@pytest.mark.parametrize("command", ["create '' 1M", "convert a ''", "dd if=a of=''", "create -f qcow2 '' 1M"])
def test_nothing_is_created_without_a_name(twins: Twins, command: str) -> None:
    twins.truncate("a", 1 << 20)
    twins.same(command)


@pytest.mark.parametrize(
    "command",
    [
        "convert -W -F vdi -t foo a b",
        "convert --bitmaps -O nbd a b",
        "convert a nbd:unix:nosock",
        "convert -t '' a b",
        "compare -T '' a a",
        "bench -n missing",
        "measure -O '' --size 1",
        "create -f '' a 1",
        "convert -O '' a b",
        "dd -O '' if=a of=b",
        "commit -p missing",
        "commit -p a",
        "amend -o = -f qcow2 a",
    ],
)
def test_the_first_of_several_mistakes_is_told(twins: Twins, command: str) -> None:
    twins.truncate("a", 1 << 20)
    expected, found = (run(shlex.split(command)) for run in (twins.run_real, twins.run_ours))
    assert found == expected


@pytest.mark.parametrize(
    "backing", ["backing=null", "backing.foo=1", "backing.driver=qcow2,backing.file.filename=missing"]
)
def test_mistakes_about_a_backing_file_name_it(twins: Twins, backing: str) -> None:
    twins.prepare("qemu-img create -q -f raw a 1M")
    twins.prepare("qemu-img create -q -f qcow2 -b a -F raw b")
    twins.same(f"map --image-opts driver=qcow2,file.filename=b,{backing}")


def test_objects_of_one_name_are_refused(twins: Twins) -> None:
    twins.truncate("a", 1 << 20)
    twins.same("info --object secret,id=a,data=1 --object secret,id=a,data=1 a")


@pytest.mark.parametrize(
    "options",
    [
        "",
        "a",
        "driver",
        "driver=raw",
        "driver=file",
        "driver=foo,file.filename=raw",
        "=",
        "driver=file,filename=raw",
        "driver=raw,file.filename=raw",
        "driver=raw,file.filename=missing",
        "driver=raw,file.filename=",
        "driver=raw,file.driver=file",
        "driver=raw,file.driver=foo,file.filename=raw",
        "driver=raw,file.filename=raw,foo=3",
        "driver=raw,file.filename=raw,file.foo=3",
        "driver=raw,size=512,file.filename=raw",
        "driver=raw,size=3,file.filename=raw",
        "driver=raw,size=1M,file.filename=raw",
        "driver=raw,offset=512,file.filename=raw",
        "driver=raw,offset=1M,file.filename=raw",
        "driver=raw,offset=1,size=512,file.filename=raw",
        "file.filename=raw",
        "file.file.filename=raw",
        "file=x,file.filename=raw",
        "filename=raw",
        "driver=qcow2,file.filename=qcow2",
        "driver=qcow2,file.filename=qcow2,file.locking=off,node-name=x,discard=unmap,cache.direct=on",
        "driver=qcow2,file.filename=qcow2,node-name=1x",
        "driver=qcow2,file.filename=qcow2,discard=foo",
        "driver=qcow2,file.filename=qcow2,cache.direct=3",
        "driver=qcow2,file.filename=qcow2,filename=x",
        "driver=qcow2,file.filename=qcow2,lazy-refcounts=on,overlap-check=none",
        "driver=qcow2,file.filename=qcow2,lazy-refcounts=3",
        "driver=qcow2,file.filename=qcow2,l2-cache-size=x",
        "driver=qcow2,file.filename=qcow2,overlap-check=x",
        "driver=qcow2,file.filename=qcow2,overlap-check=all,overlap-check.template=none",
        "driver=qcow2,file.filename=qcow2,read-only=on,force-share=on",
        "driver=qcow2,file.filename",
        "driver=qcow2,file.filename=qcow2,cache.writeback=off",
        "driver=qcow2,file.filename=qcow2,backing=",
    ],
)
def test_images_are_described_by_options(twins: Twins, options: str) -> None:
    twins.truncate("raw", 100_000)
    twins.prepare("qemu-img create -q -f qcow2 qcow2 1M")
    twins.write("raw", bytes(1), 99_999)
    twins.same(f"info --image-opts '{options}'")


@pytest.mark.parametrize("name", ["a:b", "nbd:unix:x", "file:x", "host_device:x", "blkdebug::x"])
def test_a_name_among_options_is_a_path_whatever_it_looks_like(twins: Twins, name: str) -> None:
    twins.truncate(name, 100_000)
    for described in (f"driver=raw,file.filename={name}", f"file.filename={name}", f"driver=file,filename={name}"):
        assert twins.same(f"measure -O raw --image-opts {described}").code == 0
    assert twins.same(f"""measure -O raw 'json:{{"driver":"raw","file":{{"filename":"{name}"}}}}'""").code == 0
    twins.prepare(f"qemu-img create -q -f qcow2 -b ./{name} -F raw top")
    options = f"driver=qcow2,file.filename=top,backing.driver=raw,backing.file.filename={name}"
    assert twins.same(f"map --output=json --image-opts {options}").code == 0


def test_a_format_beside_options_is_refused(twins: Twins) -> None:
    twins.refused("info --image-opts -f raw driver=raw,file.filename=a")


def test_read_only_options_forbid_writing(twins: Twins) -> None:
    twins.truncate("a", 1 << 20)
    twins.refused("resize --image-opts driver=raw,file.filename=a,read-only=on 2M")


@pytest.mark.parametrize(
    "tree",
    [
        '{"driver":"qcow2","file":{"driver":"file","filename":"q"}}',
        '{"driver":"qcow2","file":{"driver":"file","filename":"q"},"lazy-refcounts":true}',
        '{"file":{"driver":"file","filename":"q"}}',
        '{"file.filename":"q"}',
        '{"file.filename":"q"',
        "[]",
        '{"driver":"qcow2","file":"x"}',
        '{"driver":"raw","file":{"filename":"q"},"size":512}',
        '{"driver":"qcow2","file":{"filename":"q"},"backing":null}',
        '{"driver":"qcow2","file":{"filename":"q"},"read-only":"on"}',
        '{"driver":"qcow2","file":{"filename":"q"},"lazy-refcounts":3}',
        '{"driver":"qcow2","file":{"filename":"q"},"backing":""}',
        '{"driver":"qcow2","driver":"raw","file":{"filename":"q"}}',
        '{"driver":true}',
        '{"driver":"file","filename":"\\ud800"}',
        '{"driver":"file","filename":"\\ud83d\\ude00"}',
        '{"driver":"raw","file":{"driver":"null-co","size":9223372035781033984}}',
        '{"driver":"raw","file":{"driver":"null-co","size":9223372035781033985}}',
        '{"driver":"raw","file":{"driver":"null-co","size":9223372036854775807}}',
        '{"driver":"raw","file":{"driver":"null-co","size":NaN}}',
        '{"driver":"null-co"}{}',
        '{"driver":"null-co","size":01}',
        '{"driver":"null-co","size":1.}',
        '{"driver":"null-co","size":0x10}',
        '{"driver":"null-co","size":-}',
        '{"driver":"null-co","size":512e+}',
        '{"driver":"null-co","size":1 2}',
        '{"driver":"null-co","size":[1 2]}',
        '{"driver":"null-co","size":-Infinity}',
        '{"driver":"quorum","vote-threshold":1,"children":["x",null]}',
        '{"driver":"quorum","vote-threshold":1,"children":[{"driver":"null-co"},null]}',
        '{"driver":"quorum","vote-threshold":1,"children.0.driver":"null-co","children.2.driver":"null-co"}',
        '{"driver":"quorum","vote-threshold":1,"children.1.driver":"null-co"}',
        '{"driver":"quorum","vote-threshold":1,"children.a.driver":"null-co"}',
    ],
)
def test_images_are_described_by_json(twins: Twins, tree: str) -> None:
    twins.prepare("qemu-img create -q -f qcow2 q 1M")
    twins.same(f"info 'json:{tree}'")


@pytest.mark.parametrize("name", ["nbd:unix:", "nbd+unix:///?socket=", "nbd:unix::exportname=x"])
def test_nobody_listens_on_a_socket_without_a_path(twins: Twins, name: str) -> None:
    real, ours = twins.run_real(["info", name]), twins.run_ours(["info", name])
    assert ours == real._replace(err=f"{real.err}The path of the socket is empty.\n")


@pytest.mark.parametrize("name", ["x", "file:x", "./x"])
@pytest.mark.parametrize("image", ["x", "file:x"])
def test_no_image_becomes_its_own_data_file(twins: Twins, name: str, image: str) -> None:
    ours = twins.run_ours(["create", "-q", "-f", "qcow2", "-o", f"data_file={name}", image, "1M"])
    assert ours == (1, "", f"qemu-img: {image}: '{name}' is the image itself, and cannot hold its data\n")
    assert not (twins.ours / "x").exists()


def test_json_may_quote_with_apostrophes(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 q 1M")
    twins.same("""info "json:{'driver':'qcow2','file':{'filename':'q'}}" """)


def test_a_named_format_overrides_json(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 q 1M")
    twins.same("""info -f raw 'json:{"driver":"qcow2","file":{"filename":"q"}}'""")
