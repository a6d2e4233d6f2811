"""Run the command line as ``python -m gliomark``, as the desktop client does to start its local server."""

from gliomark.cli import run

# worker processes of the server import this module again
if __name__ == "__main__":
    run()
