"""One file per revision, see ``gliomark.server.migrations``."""
