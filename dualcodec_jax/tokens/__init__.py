"""Corpora of codes: recordings of any number to sharded records, and back."""
