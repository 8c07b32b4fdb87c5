"""The HTTP server: routes, TLS, authentication, limits on connections, addresses and probes."""
