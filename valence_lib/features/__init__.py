"""Input features: a waveform becomes a log-mel spectrogram, pitch, statistics or encoder states."""
