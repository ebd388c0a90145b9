"""Measurements of every stage against the usual tools; see README.md."""
