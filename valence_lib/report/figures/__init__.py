"""The report's figures, drawn from plain arrays and tables."""
