"""Generic controller parts that know nothing of VMs: workqueue, reflector, store, workers."""
