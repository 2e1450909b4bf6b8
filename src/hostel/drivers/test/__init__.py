"""The in-memory hypervisor, storage and network of ``test:///default``."""
