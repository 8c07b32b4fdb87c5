"""A real Kubernetes control plane on this machine: no Docker, loopback only, fake nodes by KWOK."""
