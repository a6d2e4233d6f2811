"""``gliomark serve``: the cascade behind an HTTP interface, with records of who asked what and what was answered."""
