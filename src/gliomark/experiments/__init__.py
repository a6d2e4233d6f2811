"""Experiments behind the committed results. Only the command line imports this package."""
