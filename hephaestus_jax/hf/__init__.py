"""Hugging Face directories: reading, importing, exporting and comparing them.

Needs none of Hugging Face's own packages, and no PyTorch, except where a comparison with `transformers` is asked for.
"""
