"""Before training: inspection of a corpus, the feature store, splits."""
