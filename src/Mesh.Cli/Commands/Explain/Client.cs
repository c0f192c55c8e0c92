using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Datapath;
using Mesh.Model;

namespace Mesh.Cli.Commands.Explain;

/// <summary>Who asks: a pod of a node, found in its agent's registrations on disk, or an address.</summary>
internal sealed record Client(string Text, Place Place, string Namespace, IReadOnlyList<IpAddr> Addresses)
{
    private const string DefaultNamespace = "default";

    /// <summary>Bits of an identity that has its number from this node only: that of an address range in a policy.</summary>
    private const uint ScopedIdentity = 0xff00_0000;

    /// <exception cref="CliException">No node has such a pod.</exception>
    public static Client Find(string text, IReadOnlyList<Place> places)
    {
        if (IpAddr.TryParse(text, out var address))
            return new Client(text, places.FirstOrDefault(place => Has(place, address)) ?? places[0], DefaultNamespace, [address]);
        var (space, name) = text.Split('/') is [var first, var second] ? (first, second) : (DefaultNamespace, text);
        foreach (var place in places)
            foreach (var endpoint in Registered(place))
                if (endpoint.K8sNamespace == space && endpoint.K8sPodName == name)
                    return new Client($"{space}/{name}", place, space, [.. AddressesOf(endpoint)]);
        throw new CliException($"no pod {space}/{name} is registered on {string.Join(", ", places.Select(place => place.Name))}: "
            + "name a pod of these nodes (mesh endpoint list), or give an address");
    }

    /// <summary>Neither a pod nor a host of any cluster that is known here. As in the kernel, an address range of which only a policy
    /// speaks is outside too.</summary>
    public bool IsExternal(PinnedMaps maps) =>
        Addresses.All(address => maps.Find(address) is not { } entry || (entry.Identity & ScopedIdentity) != 0)
        && maps.Endpoints().All(endpoint => !Addresses.Contains(endpoint.Address));

    public uint? IdentityIn(PinnedMaps maps)
    {
        foreach (var endpoint in maps.Endpoints())
            if (Addresses.Contains(endpoint.Address))
                return endpoint.Identity;
        return Addresses.Select(maps.Find).FirstOrDefault(entry => entry is not null)?.Identity;
    }

    private static bool Has(Place place, IpAddr address)
    {
        using var maps = PinnedMaps.Open(place.BpfRoot);
        return maps.Endpoints().Any(endpoint => endpoint.Address == address);
    }

    private static IEnumerable<EndpointChangeRequest> Registered(Place place)
    {
        var directory = Path.Combine(place.StateDirectory, "endpoints");
        if (!Directory.Exists(directory))
            yield break;
        foreach (var path in Directory.EnumerateFiles(directory, "*.json"))
            if (Read(path) is { } endpoint)
                yield return endpoint;
    }

    /// <summary>Null for a file that is no registration, or has gone: the agent says so itself when it starts.</summary>
    private static EndpointChangeRequest? Read(string path)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllBytes(path), AgentApiJson.Wire.EndpointChangeRequest);
        }
        catch (Exception e) when (e is JsonException or FileNotFoundException)
        {
            return null;
        }
    }

    private static IEnumerable<IpAddr> AddressesOf(EndpointChangeRequest endpoint)
    {
        foreach (var text in new[] { endpoint.Addressing?.Ipv4, endpoint.Addressing?.Ipv6 })
            if (IpAddr.TryParse(text, out var address))
                yield return address;
    }
}
