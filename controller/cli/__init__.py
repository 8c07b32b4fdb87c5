"""The command line: parse, check, call, and tell a person what went wrong in one line."""
