"""One module per revision, see ``gliomark.server.migrations``."""
