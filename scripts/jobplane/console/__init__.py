"""The console: a server on loopback for one operator, and the answers that its page shows."""
