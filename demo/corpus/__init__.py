"""The speech that the demo model is trained and judged on, built from Debian and PyPI packages."""
