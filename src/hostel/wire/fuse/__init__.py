"""FUSE as Linux speaks it on ``/dev/fuse`` (``include/uapi/linux/fuse.h``, versions 7.28 and newer)."""
