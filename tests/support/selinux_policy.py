"""A policy for SELinux of a kernel that a test boots: small, and strict to machines, as the reference policy is.

What the test itself runs may do everything. A machine's process may read and run what is no image, read what is
content, and write images whose categories are among its own.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

FOLDER = Path("/sys/fs/selinux")
_SIDS = (
    *("kernel", "security", "unlabeled", "fs", "file", "file_labels", "init", "any_socket", "port", "netif", "netmsg"),
    *("node", "igmp_packet", "icmp_socket", "tcp_socket", "sysctl_modprobe", "sysctl", "sysctl_fs", "sysctl_kernel"),
    *("sysctl_net", "sysctl_net_unix", "sysctl_vm", "sysctl_dev", "kmod", "policy", "scmp_packet", "devnull"),
)
_FILE = (
    "ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link rename execute open "
    "quotaon mounton audit_access execmod watch watch_mount watch_sb watch_with_perm watch_reads"
)
_SOCKET = (
    "ioctl read write create getattr setattr lock relabelfrom relabelto append map bind connect listen accept getopt "
    "setopt shutdown recvfrom sendto name_bind"
)
_FILES = ("file", "dir", "lnk_file", "chr_file", "blk_file", "sock_file", "fifo_file")
_MORE = {
    "file": "execute_no_trans entrypoint", "dir": "add_name remove_name reparent search rmdir",
    "unix_stream_socket": "connectto",
}  # fmt: skip
_PROCESS = (
    "fork transition sigchld sigkill sigstop signull signal ptrace getsched setsched getsession getpgid setpgid getcap "
    "setcap share getattr setexec setfscreate noatsecure siginh setrlimit rlimitinh dyntransition setcurrent execmem "
    "execstack execheap setkeycreate setsockcreate getrlimit"
)
_TYPES = (
    "kernel_t",
    "file_t",
    "place_t",
    "svirt_t",
    "svirt_tcg_t",
    "svirt_image_t",
    "virt_content_t",
    "svirt_custom_t",
)
_CONTEXTS = {
    "virtual_domain_context": "system_u:system_r:svirt_t:s0\nsystem_u:system_r:svirt_tcg_t:s0\n",
    "virtual_image_context": "system_u:object_r:svirt_image_t:s0\nsystem_u:object_r:virt_content_t:s0\n",
    "files/file_contexts": "/run/images(/.*)?\tsystem_u:object_r:place_t:s0\n"
    "/var/lib/images(/.*)?\tsystem_u:object_r:place_t:s0\n",
}


def _text() -> str:
    classes = {**dict.fromkeys(_FILES, "file"), "unix_stream_socket": "socket"}
    lines = [f"class {name}" for name in (*classes, "process", "fd", "filesystem")]
    lines += [f"sid {name}" for name in _SIDS]
    lines += [f"common file {{ {_FILE} }}", f"common socket {{ {_SOCKET} }}"]
    lines += [
        f"class {name} inherits {common} {{ {_MORE[name]} }}" if name in _MORE else f"class {name} inherits {common}"
        for name, common in classes.items()
    ]
    lines += [f"class process {{ {_PROCESS} }}", "class fd { use }"]
    lines += ["class filesystem { mount remount unmount getattr relabelfrom relabelto associate }"]
    lines += ["sensitivity s0;", "dominance { s0 }", *(f"category c{number};" for number in range(1024))]
    lines += ["level s0:c0.c1023;"]
    lines += [f"mlsconstrain {{ {' '.join(_FILES)} }} {{ read write append open }} (h1 dom h2);"]
    lines += ["mlsconstrain unix_stream_socket connectto (l1 eq l2);"]
    lines += ["attribute machine;", *(f"type {name};" for name in _TYPES)]
    lines += [f"typeattribute {name} machine;" for name in ("svirt_t", "svirt_tcg_t", "svirt_custom_t")]
    every = f"{{ {' '.join((*classes, 'process', 'fd', 'filesystem'))} }}"
    lines += [f"allow kernel_t {{ {' '.join(_TYPES)} }}:{every} *;"]
    lines += [f"allow {{ {' '.join(_TYPES)} }} {{ {' '.join(_TYPES)} }}:filesystem associate;"]
    lines += [f"allow machine self:{every} *;", f"allow machine svirt_image_t:{{ {' '.join(_FILES)} }} *;"]
    read = "{ read getattr open map ioctl lock }"
    lines += [f"allow machine {{ virt_content_t file_t }}:{{ file lnk_file blk_file }} {read};"]
    lines += ["allow machine file_t:file { execute execute_no_trans entrypoint };"]
    lines += ["allow machine { file_t place_t }:dir { search read getattr open };"]
    lines += ["allow machine file_t:chr_file { read write getattr open ioctl lock };"]
    lines += ["allow machine kernel_t:dir { search read getattr open };"]
    lines += ["allow machine kernel_t:{ file lnk_file } { read getattr open };"]
    lines += ["allow machine file_t:filesystem getattr;"]
    lines += ["allow machine kernel_t:fd use;"]
    lines += ["allow machine kernel_t:process { sigchld };"]
    lines += ["role system_r;", "role system_r types { kernel_t svirt_t svirt_tcg_t svirt_custom_t };"]
    lines += ["user system_u roles { system_r } level s0 range s0 - s0:c0.c1023;"]
    whole = "system_u:system_r:kernel_t:s0 - s0:c0.c1023"
    lines += [f"sid {name} {whole if name in ('kernel', 'init') else 'system_u:object_r:file_t:s0'}" for name in _SIDS]
    lines += ["fs_use_xattr overlay system_u:object_r:file_t:s0;"]
    lines += [f"fs_use_trans {name} system_u:object_r:file_t:s0;" for name in ("tmpfs", "devtmpfs", "devpts")]
    lines += [f"fs_use_task {name} system_u:object_r:file_t:s0;" for name in ("pipefs", "sockfs")]
    others = ("proc", "sysfs", "hostfs", "selinuxfs", "rootfs", "cgroup", "cgroup2", "securityfs")
    lines += [f"genfscon {name} / system_u:object_r:file_t:s0" for name in others]
    return "\n".join([*lines, ""])


def load(work: Path, *, version: int = 33) -> None:
    """Compile it, have the kernel take it and enforce it, and configure the host as one that has it."""
    source, binary = work / "policy.conf", work / "policy"
    source.write_text(_text())
    done = subprocess.run(
        ["checkpolicy", "-M", "-U", "allow", "-c", str(version), "-o", str(binary), str(source)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stdout + done.stderr
    subprocess.run(["mount", "-t", "selinuxfs", "none", FOLDER], check=True)
    descriptor = os.open(FOLDER / "load", os.O_WRONLY)
    os.write(descriptor, binary.read_bytes())
    os.close(descriptor)
    folder = Path("/etc/selinux/test/contexts")
    (folder / "files").mkdir(parents=True)
    Path("/etc/selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=test\n")
    for name, text in _CONTEXTS.items():
        (folder / name).write_text(text)
    (FOLDER / "enforce").write_text("1")
