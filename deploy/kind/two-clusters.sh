#!/usr/bin/env bash
# Two kind clusters with Mesh, connected, with one global service. Needs docker, kind, kubectl and what `make build` makes.
# `deploy/kind/two-clusters.sh down` removes both.
set -euo pipefail
cd "$(dirname "$0")/../.."

names=(tokyo osaka)
mesh=out/bin/mesh

if [ "${1:-up}" = down ]; then
    for name in "${names[@]}"; do kind delete cluster --name "$name"; done
    exit 0
fi

for program in docker kind kubectl $mesh; do
    command -v "$program" >/dev/null || { echo "$program is missing: it is needed for kind clusters" >&2; exit 1; }
done
deploy/images/sbom.sh >out/sbom.cdx.json
for target in agent apiserver operator; do
    docker build --quiet --target "$target" --tag "mesh/$target:dev" --file deploy/images/Dockerfile .
done

for i in 1 2; do
    name=${names[i - 1]}
    kind get clusters | grep -qx "$name" || kind create cluster --name "$name" --config - <<CONFIG
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {disableDefaultCNI: true, podSubnet: 10.$i.0.0/16, serviceSubnet: 10.$((96 + i)).0.0/16}
nodes: [{role: control-plane}, {role: worker}]
CONFIG
    for target in agent apiserver operator; do kind load docker-image --name "$name" "mesh/$target:dev"; done
    $mesh install --context "kind-$name" --set "cluster.name=$name" --set "cluster.id=$i" \
        --set image.repository=mesh/agent --set image.tag=dev --set operator.image.repository=mesh/operator --set operator.image.tag=dev \
        --set clustermesh.apiserver.image.repository=mesh/apiserver --set clustermesh.apiserver.image.tag=dev \
        --set "ipam.operator.clusterPoolIPv4PodCIDRList={10.$i.0.0/16}"
    $mesh status --context "kind-$name" --wait
    $mesh clustermesh enable --context "kind-$name" --service-type NodePort
    $mesh clustermesh status --context "kind-$name" --wait
done
$mesh clustermesh connect --context kind-tokyo --destination-context kind-osaka
$mesh clustermesh status --context kind-tokyo --wait
$mesh connectivity test --context kind-tokyo --multi-cluster kind-osaka
