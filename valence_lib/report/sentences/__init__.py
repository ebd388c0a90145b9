"""Sentences of the report, as Markdown, whose words depend on the numbers of results.json."""
