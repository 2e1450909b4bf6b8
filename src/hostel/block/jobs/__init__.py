"""Block jobs: long copies on a live graph (facts: job.c, blockjob.c and live-block-operations of QEMU)."""
