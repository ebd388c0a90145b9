"""The embedded demo corpus: computer voices with simulated ratings, to run every stage without real data."""
