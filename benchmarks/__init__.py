"""Compares daskprs with what else a user would take, in one run on one machine."""
