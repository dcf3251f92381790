"""Contracts made from the models: JSON Schema, OpenAPI, AsyncAPI, TypeScript.

`catalogue` lists the contracts; the models in `jobplane_models` define them. `files` renders them.
"""
