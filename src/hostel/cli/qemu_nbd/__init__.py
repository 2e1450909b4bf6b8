"""``qemu-nbd``: an image served over NBD, or a look at what another server exports."""
