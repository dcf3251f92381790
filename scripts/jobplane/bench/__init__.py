"""The measurements of `jobplane bench`, one module each, found like the verbs."""
