"""The generic parts of a controller, independent of VMs: watch, reflector, store, workqueue, workers, election."""
