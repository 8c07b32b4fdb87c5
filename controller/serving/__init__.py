"""The HTTP door: TLS, tokens, limits, addresses, health."""
