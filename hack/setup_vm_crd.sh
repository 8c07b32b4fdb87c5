#!/usr/bin/env bash
# Install the VirtualMachine and VirtualMachineMigration resources, wait until the API server serves them, and show them. Safe to run again.
# Uses kubectl from KUBECTL or PATH, and kubectl's own choice of cluster (KUBECONFIG).
set -euo pipefail

kubectl=${KUBECTL:-kubectl}
manifests=$(cd "$(dirname "${BASH_SOURCE[0]}")/../manifests/crds" && pwd)
group=simulation.node-classifier.io

command -v "$kubectl" >/dev/null || { echo "error: kubectl not found; install it, or name it: KUBECTL=/path/to/kubectl $0" >&2; exit 1; }

"$kubectl" apply --server-side --force-conflicts --field-manager=vmsim-setup -f "$manifests"
for plural in virtualmachines virtualmachinemigrations; do
  "$kubectl" wait --for condition=established --timeout=60s "crd/$plural.$group"
done
"$kubectl" get crd "virtualmachines.$group" "virtualmachinemigrations.$group"
"$kubectl" get virtualmachines,virtualmachinemigrations --all-namespaces
echo "VirtualMachine is installed. Next: kubectl apply -f manifests/examples/example-vms.yaml"
