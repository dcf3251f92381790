"""The workspace command: one module a verb."""
