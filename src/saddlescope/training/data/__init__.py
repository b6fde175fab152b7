"""Data sets as tensors: the original files, decoded once."""
