"""Training, the trained runs on disk, and prediction."""
