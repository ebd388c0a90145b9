"""Corpora in the form in which they are published: one module each, listed in `known`."""
