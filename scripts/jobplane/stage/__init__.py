"""A stage: its names and clients; a local one's emulator, tokens and logs."""
