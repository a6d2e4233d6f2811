"""The command line; packages are imported only when their command runs."""

from gliomark.cli.main import app, run

__all__ = ["app", "run"]
