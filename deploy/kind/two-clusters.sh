#!/usr/bin/env bash
# Two kind clusters with Mesh, connected, with one global service. Needs docker, kind, kubectl and what `make build` makes.
# Run again, it goes on where it ended. `deploy/kind/two-clusters.sh down` removes both.
set -euo pipefail
cd "$(dirname "$0")/../.."

names=(tokyo osaka)
mesh=out/bin/mesh
# The tag that the chart asks for unless told otherwise: no value has to name the images.
version=$(sed -n 's/^appVersion: "\(.*\)"$/\1/p' deploy/helm/cilium/Chart.yaml)

if [ "${1:-up}" = down ]; then
    for name in "${names[@]}"; do kind delete cluster --name "$name"; done
    exit 0
fi

for program in docker kind kubectl $mesh; do
    command -v "$program" >/dev/null || { echo "$program is missing: it is needed for kind clusters" >&2; exit 1; }
done
deploy/images/sbom.sh >out/sbom.cdx.json
for target in agent apiserver operator; do
    docker build --quiet --target "$target" --tag "mesh/$target:$version" --file deploy/images/Dockerfile .
done

for i in 1 2; do
    name=${names[i - 1]}
    grep -qx "$name" <<<"$(kind get clusters 2>/dev/null)" || kind create cluster --name "$name" --config - <<CONFIG
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {disableDefaultCNI: true, podSubnet: 10.$i.0.0/16, serviceSubnet: 10.$((96 + i)).0.0/16}
nodes: [{role: control-plane}, {role: worker}]
CONFIG
    for target in agent apiserver operator; do kind load docker-image --name "$name" "mesh/$target:$version"; done
    verb=install
    if $mesh config values --context "kind-$name" >/dev/null 2>&1; then verb=upgrade; fi
    $mesh $verb --context "kind-$name" --set "cluster.name=$name" --set "cluster.id=$i" \
        --set "ipam.operator.clusterPoolIPv4PodCIDRList={10.$i.0.0/16}"
    $mesh status --context "kind-$name" --wait
    $mesh clustermesh enable --context "kind-$name" --service-type NodePort
    $mesh clustermesh status --context "kind-$name" --wait
done
$mesh clustermesh connect --context kind-tokyo --destination-context kind-osaka
$mesh clustermesh status --context kind-tokyo --wait
$mesh connectivity test --context kind-tokyo --multi-cluster kind-osaka
