using Mesh.Model;

namespace Mesh.Cli.Hosts;

/// <summary>A node of a cluster without Kubernetes, as `--node NAME=IP,RANGE[,RANGE]` says it.</summary>
/// <param name="Address">Where tunnels to it end, IPv4 or IPv6.</param>
/// <param name="PodRanges">One of each family at most; its first address is the node's own among its pods.</param>
internal sealed record HostNode(string Name, IpAddr Address, IReadOnlyList<IpPrefix> PodRanges)
{
    public const string Form = "NAME=IP,POD_RANGE[,POD_RANGE], such as rack7=172.30.1.1,10.1.1.0/24,fd00:10:1:1::/64";

    /// <exception cref="CliException">It has another form, or its addresses cannot be; says which and what is allowed.</exception>
    public static HostNode Parse(string text)
    {
        if (text.Split('=', 2) is not [{ Length: > 0 } name, var rest] || rest.Split(',') is not [var ip, _, ..] parts || parts.Length > 3)
            throw new CliException($"--node {text}: must be {Form}");
        if (!name.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c is '-' or '.') || name.Length > 253)
            throw new CliException($"--node {text}: '{name}' is no name of a node: a-z, 0-9, - and . are allowed");
        if (!IpAddr.TryParse(ip, out var address))
            throw new CliException($"--node {text}: '{ip}' is not an address");
        var ranges = parts.Skip(1).Select(range => IpPrefix.TryParse(range, out var prefix) ? prefix
            : throw new CliException($"--node {text}: '{range}' is not a range such as 10.1.1.0/24")).ToList();
        if (ranges.Count == 2 && ranges[0].Address.IsV6 == ranges[1].Address.IsV6)
            throw new CliException($"--node {text}: two pod ranges of one family; one of IPv4 and one of IPv6 are allowed");
        foreach (var range in ranges.Where(range => range.Length > (range.Address.IsV6 ? 120 : 28)))
            throw new CliException($"--node {text}: {range} is too small for pods: at most /28 (IPv4) or /120 (IPv6)");
        return new HostNode(name, address, ranges);
    }

    /// <summary>The node's own address in a pod range: the first after the range's own.</summary>
    public static IpAddr RouterOf(IpPrefix range) =>
        range.Address.IsV6 ? IpAddr.V6(range.Address.Value + 1) : IpAddr.V4((uint)range.Address.Value + 1);
}
