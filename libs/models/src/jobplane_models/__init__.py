"""Pydantic models of what Jobplane stores, sends and accepts.

`assemblies`: the assembly document. `messages`: the socket protocol, both directions.
`payloads`: the payload of each socket action. `requests`, `answers`: what is sent for an action,
and what comes of it. `lookups`: look-ups of assemblies. `workspaces`: the job flow and its
functions. `queues`: messages in queues. `events`: what AWS invokes the functions with.
Import the module that is needed; importing this package alone loads none of them.
"""
