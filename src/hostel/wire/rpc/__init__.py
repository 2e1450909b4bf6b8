"""libvirt's RPC: messages over a byte stream, the procedure table, and the machine of one connection."""
