"""The command line; packages are imported only when their command runs."""

from gliomark.cli.main import app, run, run_bids

__all__ = ["app", "run", "run_bids"]
