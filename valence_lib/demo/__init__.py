"""The embedded demo corpus: computer voices with simulated ratings, so that every stage runs without real data."""
