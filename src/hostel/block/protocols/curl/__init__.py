"""The protocols that libcurl speaks: ``http``, ``https``, ``ftp``, ``ftps`` and ``tftp``, for reading."""
