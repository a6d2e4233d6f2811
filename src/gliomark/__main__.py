"""``python -m gliomark`` is ``gliomark``; the desktop client starts its local server so."""

from gliomark.cli import run_command_line

# a server's workers import this module again
if __name__ == "__main__":
    run_command_line()
