"""Contracts made from the models: JSON Schema, OpenAPI, AsyncAPI, TypeScript.

`catalogue` names what there is a contract of; the models in `jobplane_models` say what it is.
`render` makes every file's text. Nothing here is read by hand-written documents.
"""
