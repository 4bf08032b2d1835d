"""Networks: pure functions of parameters and arrays."""
