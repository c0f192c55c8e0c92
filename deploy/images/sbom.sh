#!/usr/bin/env bash
# The parts of Mesh's programs as CycloneDX 1.5 JSON on stdout: NuGet packages with the versions that were restored, and the Debian
# libraries that the programs link. Needs a restored solution and jq.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$(sed -n 's/.*<Version>\(.*\)<\/Version>.*/\1/p' Directory.Build.props)
packages=$(for project in deploy/program src/Mesh.Cni; do
    assets=$project/obj/project.assets.json
    [ ! -d "$project" ] || [ -f "$assets" ] || { echo "sbom: $project is not restored: run 'make build' first" >&2; exit 1; }
    [ ! -f "$assets" ] || jq -c '.libraries | to_entries[] | select(.value.type == "package")
        | (.key | split("/")) as $name | {name: $name[0], version: $name[1]}' "$assets"
done | sort -u)
libraries=$(for library in libbpf1 libelf1 zlib1g libssl3; do
    dpkg-query -W -f='{"name":"${Package}","version":"${Version}"}\n' "$library" 2>/dev/null || true
done)

jq -n --arg version "$version" --slurpfile packages <(echo "$packages") --slurpfile libraries <(echo "$libraries") '{
    bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
    metadata: {component: {type: "application", name: "mesh", version: $version}},
    components: (
        ($packages | map({type: "library", name, version, purl: "pkg:nuget/\(.name)@\(.version)"}))
        + ($libraries | map({type: "library", name, version, purl: "pkg:deb/debian/\(.name)@\(.version)?distro=bookworm"})))
}'
