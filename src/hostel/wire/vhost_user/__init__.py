"""vhost-user: how a machine hands a device's queues and its memory to another process (docs/interop/vhost-user.rst)."""
