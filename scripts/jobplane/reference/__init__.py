"""Tables of docs/ that are made from the code and the compiled stack."""
