"""virtio 1.2: guest memory, the split virtqueue as a device sees it, and what virtio-blk puts into it."""
