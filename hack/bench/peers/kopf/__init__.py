"""The same job with Kopf. Runs in an environment of its own (requirements.txt)."""
