"""Who does it: the hypervisor, storage and network drivers behind the object model."""
