using System.Net;

namespace Mesh.KubeApi;

/// <summary>How requests are allowed: by RBAC objects as a kube-apiserver does, or all of them.</summary>
public enum KubeAuthorization
{
    /// <summary>Roles, ClusterRoles and their bindings decide; group system:masters may do all.</summary>
    Rbac,

    /// <summary>Whoever comes may do all, with or without credentials.</summary>
    AlwaysAllow,
}

/// <summary>What a stand-in of kube-apiserver is asked to be. The defaults give a server of its own for one test.</summary>
public sealed record KubeApiOptions
{
    /// <summary>Where it listens. Loopback unless nodes in other namespaces must reach it.</summary>
    public IPAddress Address { get; init; } = IPAddress.Loopback;

    /// <summary>TCP port, 0 = any free one. A restart keeps the port.</summary>
    public int Port { get; init; }

    /// <summary>
    /// Further TCP endpoints of the same server: a second address, another network namespace's. Each is bound where this process is;
    /// for another namespace hand in a socket by <see cref="ListenHandles"/>.
    /// </summary>
    public IReadOnlyList<IPEndPoint> AlsoListen { get; init; } = [];

    /// <summary>File descriptors of listening TCP sockets opened elsewhere (another network namespace); served like the others.</summary>
    public IReadOnlyList<ulong> ListenHandles { get; init; } = [];

    /// <summary>HTTPS with an authority of its own, or plain HTTP.</summary>
    public bool Tls { get; init; } = true;

    /// <summary>Host names and addresses for the server certificate beside <see cref="Address"/>, localhost and kubernetes.default.svc.</summary>
    public IReadOnlyList<string> CertificateNames { get; init; } = [];

    public KubeAuthorization Authorization { get; init; } = KubeAuthorization.Rbac;

    /// <summary>Serves exec, attach, logs and port-forward of pods; without one these answer 503.</summary>
    public IPodRuntime? Pods { get; init; }

    /// <summary>Name that /version gives and the major and minor that clients compare: "v1.30.4".</summary>
    public string Version { get; init; } = "v1.30.4";

    /// <summary>Range that clusterIPs come from; its first address is that of the Service default/kubernetes.</summary>
    public string ServiceCidr { get; init; } = "10.96.0.0/16";

    /// <summary>IPv6 range of clusterIPs; null = a cluster with IPv4 Services only.</summary>
    public string? ServiceCidr6 { get; init; }

    /// <summary>Ports given to NodePort and LoadBalancer Services, both ends included.</summary>
    public (int First, int Last) NodePorts { get; init; } = (30000, 32767);

    /// <summary>Changes remembered for watches that begin in the past; older ones are answered 410.</summary>
    public int HistoryMax { get; init; } = 200_000;

    /// <summary>How often a watch that asked for bookmarks gets one.</summary>
    public TimeSpan BookmarkInterval { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Changes that may wait for one watch; a slower reader is cut off, as a kube-apiserver does.</summary>
    public int WatchBacklogMax { get; init; } = 100_000;

    /// <summary>Deletes what its owners left behind, foreground, background and orphan.</summary>
    public bool CollectGarbage { get; init; } = true;

    /// <summary>Empties and removes namespaces that are being deleted.</summary>
    public bool FinishNamespaces { get; init; } = true;

    /// <summary>Every namespace gets ServiceAccount default and ConfigMap kube-root-ca.crt.</summary>
    public bool MakeServiceAccounts { get; init; } = true;

    /// <summary>Faults may also be asked for by HTTP on /_faults (only ever in tests; needs no credentials).</summary>
    public bool FaultPath { get; init; }

    public TimeProvider Time { get; init; } = TimeProvider.System;
}

/// <summary>Who makes a request: a name and groups, as certificates (CN, O), tokens and RBAC see them.</summary>
public sealed record KubeUser(string Name, params IReadOnlyList<string> Groups)
{
    /// <summary>May do everything.</summary>
    public static KubeUser Admin { get; } = new("kubernetes-admin", "system:masters");

    /// <summary>Nobody known; sees /version and the health paths.</summary>
    public static KubeUser Anonymous { get; } = new("system:anonymous", "system:unauthenticated");

    /// <summary>The kubelet of a node.</summary>
    public static KubeUser Node(string node) => new($"system:node:{node}", "system:nodes");
}

/// <summary>What proves a user in a kubeconfig.</summary>
public enum KubeCredential
{
    ClientCertificate,
    Token,
}
