"""Shared by the parity tests; they need torch and the upstream package (``make test-parity``)."""

import jax
import pytest

pytest.importorskip("torch", reason="parity tests need `make test-parity`'s environment")

jax.config.update("jax_platforms", "cpu")
