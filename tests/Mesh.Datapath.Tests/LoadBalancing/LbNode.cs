using System.Globalization;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Tests.Kernel;
using Mesh.Model;

namespace Mesh.Datapath.Tests.LoadBalancing;

/// <summary>The load-balancing half of an agent on real pinned maps; <see cref="Restart"/> is a new agent on the old maps.</summary>
internal sealed class LbNode : IDisposable
{
    private readonly PinnedTestMaps _pinned;
    private LbMaps _maps;

    internal LbNode(uint services = 64, uint blocks = 1024, uint backends = 512)
    {
        _pinned = new PinnedTestMaps(services, blocks, backends);
        Reader = _pinned.Read();
        (_maps, Grace, Store, Clusters, Operations) = Boot();
    }

    internal PinnedMaps Reader { get; }

    internal LbMaps Kernel => _maps;

    internal GracePeriod Grace { get; private set; }

    internal ServiceStore Store { get; private set; }

    internal ClusterLiveness Clusters { get; private set; }

    internal FrontendOperations Operations { get; private set; }

    /// <summary>The old agent is dropped as a crash would; nothing of it is asked to clean up in the kernel.</summary>
    internal void Restart()
    {
        _maps.Dispose();
        Grace.Dispose();
        (_maps, Grace, Store, Clusters, Operations) = Boot();
        Operations.Adopt();
    }

    /// <summary>Upserts, and returns the errors by address.</summary>
    internal IReadOnlyList<string> Update(params Frontend[] rows)
    {
        var errors = new List<string>();
        Operations.Update([.. rows.Select(row => KeyValuePair.Create(row.Address, row))], (_, fault) => errors.Add(fault.Cause));
        return errors;
    }

    internal void Delete(params L3n4Addr[] keys) => Operations.Delete(keys, (_, fault) => Assert.Fail(fault.Cause));

    /// <summary>What the kernel says, in the same words as <see cref="Text(Frontend)"/>; checks every table on the way.</summary>
    internal IReadOnlyDictionary<L3n4Addr, string> Read() => Reader.Frontends().ToDictionary(frontend => frontend.Address, Text);

    /// <summary>All bytes of the memory-mapped maps and all entries of the hash maps.</summary>
    internal string Bytes()
    {
        using var hash = System.Security.Cryptography.IncrementalHash.CreateHash(System.Security.Cryptography.HashAlgorithmName.SHA256);
        hash.AppendData(_maps.Services.Bytes);
        hash.AppendData(_maps.Arena.Bytes);
        hash.AppendData(_maps.Backends.Bytes);
        hash.AppendData(_maps.Clusters.Bytes);
        var entries = _maps.Services4.Dump().Select(pair => $"{pair.Key.ToL3n4Addr()}={pair.Value.Id}")
            .Concat(_maps.Services6.Dump().Select(pair => $"{pair.Key.ToL3n4Addr()}={pair.Value.Id}")).Order(StringComparer.Ordinal);
        return Convert.ToHexString(hash.GetHashAndReset()) + string.Join(",", entries);
    }

    public void Dispose()
    {
        Reader.Dispose();
        _maps.Dispose();
        Grace.Dispose();
        _pinned.Dispose();
    }

    internal static string Text(Frontend frontend) => Text(frontend.Affinity, frontend.Backends
        .GroupBy(backend => (backend.Tier, backend.ClusterId)).OrderBy(group => group.Key)
        .Select(group => (group.Key.Tier, group.Key.ClusterId,
            group.OrderBy(backend => backend.Address).Select(backend => (backend.Address, backend.State)))));

    internal static string Text(PinnedFrontend frontend)
    {
        foreach (var segment in frontend.Segments)
        {
            // Made new or repainted: a table that fits, in which nobody is ahead by more than one entry.
            Assert.True(segment.Table.Count >= Maglev.TableSize(segment.Backends.Count) && Maglev.MayKeep(segment.Table.Count, segment.Backends.Count));
            var shares = new int[segment.Backends.Count];
            foreach (var index in segment.Table)
                shares[index]++;
            Assert.InRange(shares.Max() - shares.Min(), 0, 1);
        }
        return Text(frontend.Affinity, frontend.Segments.Select(segment =>
            (segment.Tier, segment.ClusterId, segment.Backends.Select(backend => (backend.Address, backend.State)))));
    }

    private static string Text(ServiceAffinity affinity,
        IEnumerable<(byte Tier, uint ClusterId, IEnumerable<(L3n4Addr Address, BackendState State)> Backends)> segments) =>
        string.Create(CultureInfo.InvariantCulture, $"{affinity}") + string.Concat(segments.Select(segment =>
            string.Create(CultureInfo.InvariantCulture, $" | tier {segment.Tier} cluster {segment.ClusterId}:")
            + string.Concat(segment.Backends.Select(backend => $" {backend.Address}({backend.State})"))));

    private (LbMaps, GracePeriod, ServiceStore, ClusterLiveness, FrontendOperations) Boot()
    {
        var maps = LbMaps.OpenPinned(_pinned.Pins.Maps);
        var grace = new GracePeriod();
        var store = new ServiceStore(maps, grace);
        var clusters = new ClusterLiveness(maps.Clusters, ownCluster: 1);
        return (maps, grace, store, clusters, new FrontendOperations(maps, store, clusters, new SourceRanges(maps, grace)));
    }
}

/// <summary>Rows by short words.</summary>
internal static class Rows
{
    internal static L3n4Addr Address(string text)
    {
        var slash = text.LastIndexOf('/');
        var colon = text.LastIndexOf(':');
        var port = ushort.Parse(text[(colon + 1)..slash], CultureInfo.InvariantCulture);
        return new L3n4Addr(IpAddr.Parse(text[..colon].Trim('[', ']')), port, L4Protocols.Parse(text[(slash + 1)..]));
    }

    internal static Frontend Frontend(string address, params Backend[] backends) =>
        new(Address(address), new ServiceName("default", "rebel-base"), "", ServiceType.ClusterIP, ServiceAffinity.None, new(backends));

    internal static Backend Backend(string address, uint cluster = 1, byte tier = 0, BackendState state = BackendState.Active) =>
        new(Address(address), cluster, $"cluster{cluster}", "", "", state, tier);
}
