"""What a machine's processes say, and what guests write into files: bounded, as libvirt's virtlogd has it."""
