"""From a domain's document to QEMU's command line; pure but for what :class:`Context` was given."""
