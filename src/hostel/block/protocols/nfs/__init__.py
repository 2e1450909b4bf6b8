"""Files on NFS servers, reached in user space by libnfs: nothing is mounted."""
