"""Evaluation of codecs: metrics, other codecs, data sets, tables, listening tests."""
