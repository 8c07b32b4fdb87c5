"""The only room that talks HTTP: credentials, typed requests, typed errors."""
