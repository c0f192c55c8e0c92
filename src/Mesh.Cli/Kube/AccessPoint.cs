using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Kube;

/// <summary>Where other clusters reach this cluster's API server, and what they must show and trust.</summary>
/// <param name="Type">NodePort, LoadBalancer or ClusterIP.</param>
/// <param name="Addresses">At least one.</param>
internal sealed record AccessPoint(string Type, IReadOnlyList<string> Addresses, int Port, string ClusterName, string ClusterId, int MaxConnectedClusters,
    string? Tunnel, string? Authority, string? Certificate, string? Key)
{
    private const string ServiceName = "clustermesh-apiserver";

    /// <summary>Reads Service, ConfigMap and Secrets.</summary>
    /// <exception cref="CliException">Something is missing; says what and the mend.</exception>
    public static async Task<AccessPoint> ReadAsync(KubeCluster cluster, CancellationToken cancel)
    {
        var config = await ConfigAsync(cluster, cancel);
        var service = await cluster.Client.FindAsync(KubeResources.Services.Raw, cluster.Namespace, ServiceName, cancel)
            ?? throw new CliException($"{cluster.Name}: there is no service {ServiceName} in namespace {cluster.Namespace}: "
                + $"enable it with `mesh clustermesh enable --context {cluster.Name}`");
        var remote = await cluster.Client.FindAsync(KubeResources.Secrets.Raw, cluster.Namespace, "clustermesh-apiserver-remote-cert", cancel)
            ?? throw new CliException($"{cluster.Name}: there is no secret clustermesh-apiserver-remote-cert: `mesh clustermesh enable` makes it");
        var authority = await cluster.Client.FindAsync(KubeResources.Secrets.Raw, cluster.Namespace, "cilium-ca", cancel);
        var type = service.Text("spec", "type") ?? "ClusterIP";
        var addresses = type switch
        {
            "NodePort" => await NodeAddressesAsync(cluster, cancel),
            "LoadBalancer" => await LoadBalancerAsync(cluster, service, cancel),
            _ => service.Text("spec", "clusterIP") is { Length: > 0 } ip and not "None" ? [ip] : [],
        };
        if (addresses.Count == 0)
            throw new CliException($"{cluster.Name}: unable to derive service IPs automatically: service {ServiceName} of type {type} has no address yet");
        var port = service.Items("spec", "ports").FirstOrDefault();
        return new AccessPoint(type, addresses, (int)port.Number(type == "NodePort" ? "nodePort" : "port"),
            config.Text("data", "cluster-name") ?? "default", config.Text("data", "cluster-id") ?? "0",
            config.Text("data", "max-connected-clusters") is { } max && int.TryParse(max, out var most) ? most : 255,
            config.Text("data", "routing-mode") == "tunnel" ? config.Text("data", "tunnel-protocol") ?? "vxlan" : null,
            remote.Secret("ca.crt") ?? authority.Secret("ca.crt") ?? authority.Secret("tls.crt"), remote.Secret("tls.crt"), remote.Secret("tls.key"));
    }

    /// <summary>ConfigMap cilium-config.</summary>
    /// <exception cref="CliException">There is none: nothing is installed.</exception>
    public static async Task<JsonObject> ConfigAsync(KubeCluster cluster, CancellationToken cancel) =>
        await cluster.Client.FindAsync(KubeResources.ConfigMaps.Raw, cluster.Namespace, "cilium-config", cancel)
            ?? throw new CliException($"{cluster.Name}: there is no ConfigMap cilium-config in namespace {cluster.Namespace}: "
                + $"install with `mesh install --context {cluster.Name}`, or name the namespace with -n");

    /// <summary>All nodes: any of them leads to the API server, and one may go.</summary>
    private static async Task<IReadOnlyList<string>> NodeAddressesAsync(KubeCluster cluster, CancellationToken cancel)
    {
        var nodes = await cluster.Client.ListAsync(KubeResources.Nodes.Raw, null, cancel);
        return [.. nodes.Select(node => node.Items("status", "addresses").ToLookup(one => one.Text("type"), one => one.Text("address")))
            .Select(addresses => addresses["ExternalIP"].Concat(addresses["InternalIP"]).FirstOrDefault()).OfType<string>()];
    }

    private static async Task<IReadOnlyList<string>> LoadBalancerAsync(KubeCluster cluster, JsonObject service, CancellationToken cancel)
    {
        var addresses = new List<string>();
        foreach (var ingress in service.Items("status", "loadBalancer", "ingress"))
        {
            if (ingress.Text("ip") is { } ip)
                addresses.Add(ip);
            else if (ingress.Text("hostname") is { } host)
                addresses.AddRange((await ResolveAsync(cluster, host, cancel)).Select(one => one.ToString()));
        }
        return addresses;
    }

    private static async Task<System.Net.IPAddress[]> ResolveAsync(KubeCluster cluster, string host, CancellationToken cancel)
    {
        try
        {
            return await System.Net.Dns.GetHostAddressesAsync(host, cancel);
        }
        catch (System.Net.Sockets.SocketException e)
        {
            throw new CliException($"{cluster.Name}: the load balancer's name {host} cannot be resolved here: {e.Message}");
        }
    }
}
