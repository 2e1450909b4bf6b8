"""Format drivers: how an image is laid out in bytes."""
