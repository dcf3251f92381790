"""Clients for Jobplane: status, sockets, webhook verification."""
