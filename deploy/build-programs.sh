#!/usr/bin/env bash
# Publishes the programs as native code into out/bin: one program under its names (deploy/program), and mesh-cni.
# Does nothing when no source has changed since the last time.
set -euo pipefail
cd "$(dirname "$0")/.."

runtime=linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
bin=out/bin
stamp=out/programs.sha256

fingerprint=$({
    find src clustermesh deploy/program Directory.*.props global.json -type f \
        \( -name '*.cs' -o -name '*.csproj' -o -name '*.props' -o -name '*.json' \) -not -path '*/obj/*' -not -path '*/bin/*'
    ls out/bpf/*.bpf.o
} | LC_ALL=C sort | xargs sha256sum | sha256sum)
built=true
for program in mesh mesh-agent clustermesh-apiserver mesh-operator mesh-cni; do [ -x $bin/$program ] || built=false; done
if $built && [ -f $stamp ] && [ "$(cat $stamp)" = "$fingerprint" ]; then
    exit 0
fi

mkdir -p $bin
log=$(mktemp)
. deploy/compiler.sh
trap 'rm -f "$log"; compiler_stop' EXIT
for project in src/Mesh.Cni deploy/program; do
    echo "build: $project"
    # Twice, because one failed answer of a busy package registry must not fail a build; a compile error fails both times.
    # The analyzers look at the same sources when the solution is built.
    publish=(dotnet publish "$project" -c Release -r "$runtime" -p:PublishAot=true -p:RunAnalyzers=false
        -p:GenerateDocumentationFile=false -o "out/publish/$(basename $project)" --nologo -v quiet)
    "${publish[@]}" >"$log" 2>&1 || "${publish[@]}" >"$log" 2>&1 || {
        cat "$log" >&2
        exit 1
    }
done
install_as() { # FILE NAME: by rename, so that a program that runs just now is not written over
    install -m 0755 "$1" "$bin/.$2.new"
    mv -f "$bin/.$2.new" "$bin/$2"
}
install_as out/publish/Mesh.Cni/mesh-cni mesh-cni
install_as out/publish/program/mesh-program mesh
for name in mesh-agent clustermesh-apiserver mesh-operator; do
    ln -f $bin/mesh "$bin/.$name.new"
    mv -f "$bin/.$name.new" $bin/$name
done
ln -sf mesh $bin/cilium
echo "$fingerprint" >$stamp
