"""``gliomark serve``: the prediction pipeline as an HTTP server, with a database and an audit log of all actions."""
