{{- /* What several templates share. Only what src/Mesh.Install renders too may be used here: see its README. */ -}}

{{- define "cilium.image" -}}
{{- if .image.override -}}
{{ .image.override }}
{{- else -}}
{{ .image.repository }}:{{ default .appVersion .image.tag }}
{{- end -}}
{{- end -}}

{{- define "cilium.tunnelPort" -}}
{{- if .Values.tunnelPort -}}
{{ int .Values.tunnelPort }}
{{- else -}}
8472
{{- end -}}
{{- end -}}

{{- /* Lines of ConfigMap cilium-config: keys are flags of the programs, and what the cilium CLI looks for. */ -}}
{{- define "cilium.config" -}}
cluster-name: {{ .Values.cluster.name | quote }}
cluster-id: {{ .Values.cluster.id | int | quote }}
max-connected-clusters: {{ .Values.clustermesh.maxConnectedClusters | int | quote }}
identity-allocation-mode: crd
routing-mode: {{ .Values.routingMode | quote }}
tunnel-protocol: {{ .Values.tunnelProtocol | quote }}
tunnel-port: {{ include "cilium.tunnelPort" . | quote }}
kube-proxy-replacement: {{ .Values.kubeProxyReplacement | quote }}
enable-ipv4: {{ .Values.ipv4.enabled | quote }}
enable-ipv6: {{ .Values.ipv6.enabled | quote }}
ipam: {{ .Values.ipam.mode | quote }}
{{- if eq .Values.ipam.mode "cluster-pool" }}
{{- if .Values.ipv4.enabled }}
cluster-pool-ipv4-cidr: {{ join " " .Values.ipam.operator.clusterPoolIPv4PodCIDRList | quote }}
cluster-pool-ipv4-mask-size: {{ .Values.ipam.operator.clusterPoolIPv4MaskSize | int | quote }}
{{- end }}
{{- if .Values.ipv6.enabled }}
cluster-pool-ipv6-cidr: {{ join " " .Values.ipam.operator.clusterPoolIPv6PodCIDRList | quote }}
cluster-pool-ipv6-mask-size: {{ .Values.ipam.operator.clusterPoolIPv6MaskSize | int | quote }}
{{- end }}
{{- end }}
bpf-root: {{ printf "%s/mesh" .Values.bpf.root | quote }}
cgroup-root: /run/cilium/cgroupv2
clustermesh-config: /var/lib/cilium/clustermesh
clustermesh-cache-ttl: {{ .Values.clustermesh.cacheTTL | quote }}
{{- if .Values.cni.install }}
write-cni-conf-when-ready: /host/etc/cni/net.d/05-cilium.conflist
cni-exclusive: {{ .Values.cni.exclusive | quote }}
cni-chaining-mode: {{ .Values.cni.chainingMode | quote }}
{{- end }}
devices: {{ join "," .Values.devices | quote }}
node-port-range: {{ .Values.nodePort.range | quote }}
loadbalancer-mode: {{ .Values.loadBalancer.mode | quote }}
loadbalancer-algorithm: {{ .Values.loadBalancer.algorithm | quote }}
loadbalancer-acceleration: {{ .Values.loadBalancer.acceleration | quote }}
enable-ipv4-masquerade: {{ .Values.enableIPv4Masquerade | quote }}
enable-ipv6-masquerade: {{ .Values.enableIPv6Masquerade | quote }}
ipv4-native-routing-cidr: {{ .Values.ipv4NativeRoutingCIDR | quote }}
ipv6-native-routing-cidr: {{ .Values.ipv6NativeRoutingCIDR | quote }}
policy-audit-mode: {{ .Values.policyAuditMode | quote }}
policy-default-local-cluster: {{ .Values.clustermesh.policyDefaultLocalCluster | quote }}
clustermesh-default-global-namespace: {{ .Values.clustermesh.defaultGlobalNamespace | quote }}
clustermesh-enable-endpoint-sync: {{ .Values.clustermesh.enableEndpointSliceSynchronization | quote }}
clustermesh-enable-mcs-api: {{ or .Values.clustermesh.enableMCSAPISupport .Values.clustermesh.mcsapi.enabled | quote }}
{{- if .Values.prometheus.enabled }}
prometheus-serve-addr: {{ printf ":%d" (int .Values.prometheus.port) | quote }}
{{- end }}
{{- if .Values.operator.prometheus.enabled }}
operator-prometheus-serve-addr: {{ printf ":%d" (int .Values.operator.prometheus.port) | quote }}
{{- end }}
{{- end -}}

{{- define "cilium.configData" -}}
{{- mergeOverwrite (include "cilium.config" . | fromYaml) .Values.extraConfig | toYaml -}}
{{- end -}}

{{- /* Changes with the configuration and with nothing else, whoever renders: YAML is written in one way by Helm and in another by `mesh`,
JSON is not, and agents that need not be restarted are not when the one changes what the other installed. */ -}}
{{- define "cilium.configMark" -}}
{{- include "cilium.configData" . | fromYaml | toJson | sha256sum | trunc 16 -}}
{{- end -}}

{{- /* The API server's address for programs that start before services work. */ -}}
{{- define "cilium.apiAddress" -}}
{{- if .Values.k8sServiceHost }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.k8sServiceHost | quote }}
{{- end }}
{{- if .Values.k8sServicePort }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.k8sServicePort | quote }}
{{- end }}
{{- end -}}

{{- /* clustermesh.config.clusters, a list or a map by name, as one list of the enabled ones. */ -}}
{{- define "clustermesh.peers" -}}
peers:
{{- if kindIs "map" .Values.clustermesh.config.clusters }}
{{- range $name, $peer := .Values.clustermesh.config.clusters }}
{{- if ne (toString (get $peer "enabled")) "false" }}
- name: {{ $name | quote }}
{{- include "clustermesh.peer" $peer | nindent 2 }}
{{- end }}
{{- end }}
{{- else }}
{{- range $peer := .Values.clustermesh.config.clusters }}
{{- if ne (toString (get $peer "enabled")) "false" }}
- name: {{ get $peer "name" | quote }}
{{- include "clustermesh.peer" $peer | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "clustermesh.peer" -}}
address: {{ get . "address" | quote }}
port: {{ default 2379 (get . "port") | int }}
ips: {{ default (list) (get . "ips") | toJson }}
tls: {{ default (dict) (get . "tls") | toJson }}
{{- end -}}

{{- /* One peer's etcd client file. */ -}}
{{- define "clustermesh.etcdConfig" -}}
endpoints:
- {{ .endpoint }}
trusted-ca-file: /var/lib/cilium/clustermesh/{{ .prefix }}etcd-client-ca.crt
key-file: /var/lib/cilium/clustermesh/{{ .prefix }}etcd-client.key
cert-file: /var/lib/cilium/clustermesh/{{ .prefix }}etcd-client.crt
{{- end -}}

{{- /* The peers' own addresses: what agents read without KVStoreMesh, and what KVStoreMesh reads. */ -}}
{{- define "clustermesh.remoteFiles" -}}
{{- $domain := .Values.clustermesh.config.domain }}
{{- range $peer := (include "clustermesh.peers" . | fromYaml).peers }}
{{- $own := and (get $peer.tls "cert") (get $peer.tls "key") }}
{{- $prefix := "common-" }}
{{- if $own }}
{{- $prefix = printf "%s." $peer.name }}
{{- end }}
{{- $host := $peer.address }}
{{- if or $peer.ips (not $peer.address) }}
{{- $host = printf "%s.%s" $peer.name $domain }}
{{- end }}
{{ $peer.name }}: {{ include "clustermesh.etcdConfig" (dict "endpoint" (printf "https://%s:%d" $host (int $peer.port)) "prefix" $prefix) | b64enc }}
{{- if $own }}
{{ $peer.name }}.etcd-client-ca.crt: {{ get $peer.tls "caCert" }}
{{ $peer.name }}.etcd-client.key: {{ get $peer.tls "key" }}
{{ $peer.name }}.etcd-client.crt: {{ get $peer.tls "cert" }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Names of peers that are reached by address. */ -}}
{{- define "clustermesh.hostAliases" -}}
{{- $domain := .Values.clustermesh.config.domain }}
{{- range $peer := (include "clustermesh.peers" . | fromYaml).peers }}
{{- range $ip := $peer.ips }}
- ip: {{ $ip | quote }}
  hostnames: [{{ printf "%s.%s" $peer.name $domain | quote }}]
{{- end }}
{{- end }}
{{- end -}}

{{- /* A projected directory of client files: names of Secret clustermesh-apiserver-KIND-cert as the client files want them. */ -}}
{{- define "clustermesh.clientFiles" -}}
- secret:
    name: clustermesh-apiserver-{{ .kind }}-cert
    optional: true
    items:
      - key: ca.crt
        path: {{ .prefix }}etcd-client-ca.crt
      - key: tls.key
        path: {{ .prefix }}etcd-client.key
      - key: tls.crt
        path: {{ .prefix }}etcd-client.crt
{{- end -}}

{{- /* Secret cilium-ca, unless somebody else has made it: then it is used as it is, and never ours to change or to remove. */ -}}
{{- define "clustermesh.authority" -}}
{{- $marks := dict }}
{{- if .found }}
{{- $marks = default (dict) (get .found.metadata "annotations") }}
{{- end }}
{{- if or (not .found) (eq (get $marks "meta.helm.sh/release-name") .root.Release.Name) }}
# Signs this cluster's certificates. Clusters that share it may be connected without more.
apiVersion: v1
kind: Secret
metadata:
  name: cilium-ca
  namespace: {{ .root.Release.Namespace }}
  labels:
    app.kubernetes.io/part-of: cilium
type: Opaque
data:
  ca.crt: {{ .cert | b64enc }}
  ca.key: {{ .key | b64enc }}
{{- end }}
{{- end -}}
