"""vhost-user-blk: a guest's virtio-blk disk, served from this process through memory that both share."""
