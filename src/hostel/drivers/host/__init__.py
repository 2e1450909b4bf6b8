"""The host's processors and memory."""
