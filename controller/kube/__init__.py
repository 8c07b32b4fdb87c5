"""The client of the API server: credentials, typed requests, typed errors. All requests go through it."""
