"""Images served over NBD: what is exported, a connection's life, and the transmission phase."""
