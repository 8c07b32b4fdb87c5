"""The migration: its state machine, what is asked before it, what is kept after it."""
