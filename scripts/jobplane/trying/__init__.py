"""Call functions with the inputs of their cases, on a stage or in this process."""
