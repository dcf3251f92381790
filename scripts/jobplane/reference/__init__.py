"""Generate tables of docs/ from the code and the compiled stack."""
