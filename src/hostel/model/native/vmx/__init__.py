"""VMware: the ``.vmx`` file of a virtual machine (``src/vmx/vmx.c``)."""
