"""Robustness of the server and the command line: load, invalid uploads, idle connections, interruption."""
