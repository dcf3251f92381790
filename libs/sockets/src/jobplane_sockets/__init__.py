"""Posting to API Gateway WebSocket connections: retry, gone connections, fan-out."""
