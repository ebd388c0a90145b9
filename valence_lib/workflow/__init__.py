"""The jobs of `make report`: what is stale, how a notebook runs, what it left."""
