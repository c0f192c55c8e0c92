#!/usr/bin/env bash
# Publishes the programs as native code into out/bin, and `cilium` as a second name of `mesh`.
# Does nothing when no source has changed since the last time.
set -euo pipefail
cd "$(dirname "$0")/.."

runtime=linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
bin=out/bin
stamp=out/programs.sha256

fingerprint=$({
    find src clustermesh Directory.*.props global.json -type f \
        \( -name '*.cs' -o -name '*.csproj' -o -name '*.props' -o -name '*.json' \) -not -path '*/obj/*' -not -path '*/bin/*'
    ls out/bpf/*.bpf.o
} | LC_ALL=C sort | xargs sha256sum | sha256sum)
if [ -f $stamp ] && [ "$(cat $stamp)" = "$fingerprint" ] && [ -x $bin/mesh ] && [ -x $bin/mesh-agent ] && [ -x $bin/clustermesh-apiserver ] &&
    [ -x $bin/mesh-cni ] && [ -x $bin/mesh-operator ]; then
    exit 0
fi

mkdir -p $bin
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for project in src/Mesh.Cli src/Mesh.Agent src/Mesh.Cni src/Mesh.Operator clustermesh/Mesh.ClusterMesh.ApiServer; do
    echo "build: $project"
    # Twice, because one failed answer of a busy package registry must not fail a build; a compile error fails both times.
    publish=(dotnet publish "$project" -c Release -r "$runtime" -p:PublishAot=true -o "out/publish/$(basename $project)" --nologo -v quiet)
    "${publish[@]}" >"$log" 2>&1 || "${publish[@]}" >"$log" 2>&1 || {
        cat "$log" >&2
        exit 1
    }
done
for program in Mesh.Cli/mesh Mesh.Agent/mesh-agent Mesh.Cni/mesh-cni Mesh.Operator/mesh-operator Mesh.ClusterMesh.ApiServer/clustermesh-apiserver; do
    # Installed by rename: a program that runs just now is not written over.
    new="$bin/.$(basename $program).new"
    install -m 0755 out/publish/$program "$new"
    mv -f "$new" "$bin/$(basename $program)"
done
ln -sf mesh $bin/cilium
echo "$fingerprint" >$stamp
