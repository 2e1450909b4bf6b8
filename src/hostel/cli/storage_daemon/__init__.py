"""``qemu-storage-daemon``: block nodes, and the exports that serve them, under a QMP monitor and without a machine."""
