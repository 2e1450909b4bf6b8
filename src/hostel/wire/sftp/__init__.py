"""SFTP version 3 (draft-ietf-secsh-filexfer-02): the client's side, for one file at a time."""
