"""Metrics, intervals, comparisons and error analysis."""
