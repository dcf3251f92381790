"""Build artifacts of Lambda functions from a uv workspace, with only what they need.

`artifacts.Builder` writes them; `workspace` has the protocols of a workspace and its functions.
This module imports nothing, because some parts of the package run with the standard library only.
"""
