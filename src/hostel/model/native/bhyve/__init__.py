"""bhyve: its command lines, and those of its loaders (``src/bhyve``)."""
