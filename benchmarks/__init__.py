"""Measurements of every stage, side by side with the ways that people use now. See README.md."""
