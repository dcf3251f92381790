"""Artifacts of Lambda functions from a uv workspace, without what no function needs.

`artifacts.Builder` writes them; `workspace` says what it asks of a workspace and its functions.
This module imports nothing: a process with the standard library alone loads parts of the package.
"""
