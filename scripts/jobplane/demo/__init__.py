"""`jobplane demo`: the whole system on real input, step by step, each step with its check."""
