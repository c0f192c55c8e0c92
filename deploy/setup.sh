#!/usr/bin/env bash
# Installs the Debian packages that building, testing and running Mesh needs. Safe to run again; says nothing when all is there.
set -euo pipefail

# clang llvm clang-format: compile, strip and format the BPF programs · libbpf-dev: libbpf.so.1 and the BPF headers
# zlib1g-dev: linked by the NativeAOT programs · bpftool: `make -C bpf verify` · etcd-server etcd-client: the store, and the peer
# that benchmarks compare with · nftables iptables: lab faults and benchmark peers · kubernetes-client: kubectl, which holds the stand-in of
# kube-apiserver to the real protocol · jq docker-compose: the list of parts, and the test of docker-compose.yml (no engine is needed)
# the rest: making and looking at network namespaces
packages=(clang llvm clang-format libbpf-dev libelf-dev zlib1g-dev bpftool etcd-server etcd-client
    iproute2 nftables iptables iputils-ping curl util-linux procps make kubernetes-client jq docker-compose)

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "setup: these packages are missing and only root can install them: ${missing[*]}" >&2
        exit 1
    fi
    echo "setup: installing ${missing[*]}"
    # Debian starts a freshly installed etcd as a system service. Nobody asked for one here: the API server runs its own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    # Where another package has a kubectl already, it keeps its place and Debian's stands beside it.
    owner=$(dpkg-query -S /usr/bin/kubectl 2>/dev/null | grep -v '^diversion' | cut -d: -f1 || true)
    if [ -n "$owner" ] && [ "$owner" != kubernetes-client ]; then
        dpkg-divert --quiet --package "$owner" --no-rename --divert /usr/bin/kubectl.debian --add /usr/bin/kubectl
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v dotnet >/dev/null || ! dotnet --list-sdks | grep -q '^10\.'; then
    echo "setup: the .NET 10 SDK is missing (dotnet --list-sdks shows none that begins with 10.): install dotnet-sdk-10.0, then run this again" >&2
    exit 1
fi
