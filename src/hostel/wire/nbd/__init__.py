"""NBD, the Network Block Device protocol: fixed newstyle handshake, options, and the transmission phase of both sides.

https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""
