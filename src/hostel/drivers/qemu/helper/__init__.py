"""Programs that serve a machine's devices while it runs: made ready here, run by the supervisor."""
