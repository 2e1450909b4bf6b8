"""The only sockets: addresses, transports, TLS, and a server of threads."""
