"""Pydantic models of Jobplane's items, messages and documents."""
