"""What is left out of an artifact, and put off until it is needed."""
