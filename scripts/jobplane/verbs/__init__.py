"""The verbs: one module each, which exports `command`."""
