"""Pydantic models of what Jobplane stores, sends and accepts.

`assemblies`: the assembly document. `messages`: the socket protocol, both directions.
`payloads`: the payload of each socket action. `events`: what the functions are invoked with.
Import the module that is needed; importing this package alone loads none of them.
"""
