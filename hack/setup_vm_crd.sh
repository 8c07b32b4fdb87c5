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
  # A new CRD has no list of conditions, which `kubectl wait --for condition` takes for an error (kubernetes/kubernetes#66439).
  # The API server writes the list together with the names that it accepts.
  "$kubectl" wait --for "jsonpath={.status.acceptedNames.plural}=$plural" --timeout=60s "crd/$plural.$group" >/dev/null
  "$kubectl" wait --for condition=established --timeout=60s "crd/$plural.$group"
done
"$kubectl" get crd "virtualmachines.$group" "virtualmachinemigrations.$group"
"$kubectl" get virtualmachines,virtualmachinemigrations --all-namespaces
echo "VirtualMachine is installed. Next: kubectl apply -f manifests/examples/example-vms.yaml"
