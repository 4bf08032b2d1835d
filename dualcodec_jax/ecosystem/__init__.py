"""Models in the words of others: Hugging Face folders, Codec-SUPERB, audiotree, Flax NNX."""
