"""Patients that a model must not be used for, made from real ones, and what the check of a patient says of them."""
