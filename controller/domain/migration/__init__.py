"""The migration: its state machine, the questions before its claim, the retention after its end."""
