"""What the kernel keeps QEMU to: libvirt's drivers "selinux" (sVirt) and "apparmor", beside owners of files."""
