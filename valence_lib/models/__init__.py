"""The models: from the input features of a clip to its valence. `contract` says what each does."""
