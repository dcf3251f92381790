"""The measurements of `jobplane bench`, one module each; discovered like the verbs."""
