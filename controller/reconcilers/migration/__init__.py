"""The migration reconciler, which never touches a pod: slots, headroom, dry runs, progress."""
