"""Predict how positive or negative a speaker sounds (emotional valence) from short clips of speech.

Every stage is a module of its own, named after what it does; ARCHITECTURE.md draws the road that a
clip takes through them. Nothing is imported here, so that `import valence_lib` costs nothing.
"""

__version__ = "0.1.0"
