"""The verbs: one module each, exporting `command`."""
