"""Files of Gluster volumes, reached in user space by libgfapi: nothing is mounted."""
