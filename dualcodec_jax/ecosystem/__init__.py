"""Models in the words of other projects: Hugging Face folders, Codec-SUPERB, audiotree."""
