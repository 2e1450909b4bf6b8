"""sVirt: each machine has a pair of categories of its own, its process and its files (``security_selinux.c``)."""
