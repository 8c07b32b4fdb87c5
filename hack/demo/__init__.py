"""`make run`: a control plane, the controller, three VMs and a live table of them."""
