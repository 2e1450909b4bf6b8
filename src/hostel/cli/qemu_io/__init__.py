"""``qemu-io``: read, write and look at an image by hand or from a script."""
