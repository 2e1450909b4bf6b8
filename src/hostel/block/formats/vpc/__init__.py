"""Format ``vpc``: Virtual PC's and Hyper-V's VHD (``docs/formats/vpc.md``)."""
