"""Where clips come from: readers of corpora, course pickles and audio files."""
