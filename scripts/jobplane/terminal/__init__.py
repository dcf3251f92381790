"""How the command speaks: notes, tables, progress, interrupts; and the shell it runs in."""
