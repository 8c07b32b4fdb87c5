#!/usr/bin/env bash
# Install the VirtualMachine resource, wait until the API server serves it, and show it. Safe to run again.
# Uses kubectl from KUBECTL or PATH, and kubectl's own choice of cluster (KUBECONFIG).
set -euo pipefail

kubectl=${KUBECTL:-kubectl}
manifests=$(cd "$(dirname "${BASH_SOURCE[0]}")/../manifests/crds" && pwd)
crd=virtualmachines.simulation.node-classifier.io

command -v "$kubectl" >/dev/null || { echo "error: kubectl not found; install it, or name it: KUBECTL=/path/to/kubectl $0" >&2; exit 1; }

"$kubectl" apply --server-side --force-conflicts --field-manager=vmsim-setup -f "$manifests"
"$kubectl" wait --for condition=established --timeout=60s "crd/$crd"
"$kubectl" get crd "$crd"
"$kubectl" get virtualmachines --all-namespaces
echo "VirtualMachine is installed. Next: kubectl apply -f manifests/examples/example-vms.yaml"
