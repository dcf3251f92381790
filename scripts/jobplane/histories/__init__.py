"""Histories of operations on requests and claims: recorded, and replayed against their rules."""
