"""The page of ``--help``."""

from __future__ import annotations

from typing import Final

PAGE: Final = """\
Usage: {prog} [OPTION]...
Serve disk images without a machine: over NBD, to a guest through shared memory, or as files

Options act in the order in which they are given.
  --blockdev DRIVER,node-name=NAME,...
                         open an image: driver=qcow2,file.driver=file,file.filename=PATH, or as JSON;
                         a child may be the name of an open node: file=NAME
  --nbd-server addr.type=unix,addr.path=PATH
  --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT
                         listen for NBD clients; also tls-creds=ID, tls-authz=ID, max-connections=NUM,
                         handshake-max-seconds=NUM
  --export nbd,id=ID,node-name=NAME[,name=EXPORT][,writable=on][,description=TEXT]
           [,bitmaps.0=NAME][,allocation-depth=on]
                         export a node over NBD, for which --nbd-server must come before
  --export vhost-user-blk,id=ID,node-name=NAME,addr.type=unix,addr.path=PATH
           [,writable=on][,num-queues=NUM][,logical-block-size=BYTES]
                         export a node as the disk of a guest whose memory is shared (also addr.type=fd,addr.str=FD)
  --export fuse,id=ID,node-name=NAME,mountpoint=FILE
           [,writable=on][,growable=on][,allow-other=on|off|auto]
                         show a node as a raw file, in the place of an existing file
                         every export also takes writethrough=on, iothread=ID, fixed-iothread=on
  --object TYPE,id=ID,...
                         make a secret, TLS credentials, an authorization, a throttle group or an iothread;
                         --object help lists the types
  --chardev socket,id=ID,path=PATH,server=on[,wait=off]
  --chardev stdio,id=ID  where a monitor's client comes from; --chardev help lists the types
  --monitor CHARDEV[,pretty=on]
                         a QMP monitor on a character device
  --daemonize            return as soon as everything is ready, and go on in the background
  --pidfile PATH         write the process id there
  -T, --trace PATTERN    accepted for scripts that trace QEMU; nothing is traced
  -h, --help             show this page
  -V, --version          show the version
"""
