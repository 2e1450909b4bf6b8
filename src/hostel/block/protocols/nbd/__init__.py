"""Protocol ``nbd``: a disk that another process or host exports."""
