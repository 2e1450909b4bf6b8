"""libvirt's documents: parse, defaults, validate, format."""
