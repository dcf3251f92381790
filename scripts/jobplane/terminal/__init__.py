"""The command's terminal: notes, tables, progress, interrupts, environment variables."""
