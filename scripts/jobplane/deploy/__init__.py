"""What a deployment would change on a stage, and doing, undoing and removing it."""
