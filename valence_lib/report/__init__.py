"""The written report: results, tables, text, figures, pages."""
