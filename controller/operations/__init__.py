"""What people do with VMs, as coroutines on a client: the one implementation under the commands and the Python API."""
