"""``gliomark study run``: from a prepared cohort to a model with a measured card and a report."""
