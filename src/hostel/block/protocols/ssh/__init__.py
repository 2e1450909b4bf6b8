"""Files on hosts that are reached by SSH, through its file transfer protocol."""
