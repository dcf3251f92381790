"""`jobplane demo`: the whole system on real input, as steps that each check something."""
