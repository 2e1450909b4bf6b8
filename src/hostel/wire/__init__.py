"""Wire protocols as machines without input and output: bytes in, events and bytes out; no socket, clock or thread."""
