"""The operations on VMs, as coroutines on a client: one implementation for the commands and the Python API."""
