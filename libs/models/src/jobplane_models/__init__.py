"""Pydantic models of what Jobplane stores, sends and accepts.

`assemblies`: the assembly document. `messages`: the socket protocol, both directions.
`payloads`: the payload of each socket action. `requests`, `answers`: the request and the answer of
each action. `lookups`: look-ups of assemblies. `workspaces`: the job flow and its functions.
`queues`: messages in queues. `events`: the events with which AWS invokes the functions.
Import the module that is needed; importing this package loads none of them.
"""
