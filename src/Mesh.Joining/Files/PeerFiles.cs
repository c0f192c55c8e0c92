using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mesh.Joining.Files;

/// <summary>
/// The files by which readers find a peer, in Cilium's own format and names, so that a Cilium agent or a Cilium KVStoreMesh can use them
/// as well as ours: C (an etcd client file), C.etcd-client-ca.crt, C.etcd-client.crt, C.etcd-client.key; with a relay the agents' file C
/// names the own cluster's door and the files local-etcd-client*. Ours beside them: C.imports.json, what is believed of that peer.
/// A peer file comes last and goes first, because it is what readers act upon.
/// </summary>
internal static class PeerFiles
{
    private const string LocalPrefix = "local-etcd-client";

    /// <summary>All that is to be written so that we read a peer and it may read us.</summary>
    /// <param name="certificate">PEM of our client certificate at the peer.</param>
    /// <param name="key">PEM of its key.</param>
    public static IReadOnlyList<FileChange> Connected(
        ClusterDescription own, ClusterFacts peer, string certificate, string key, bool direct)
    {
        using var authorities = ClusterFacts.ReadAuthorities(peer.Authorities);
        var changes = new List<FileChange>();
        if (own.UsersFile is { } users)
        {
            var user = own.UserOf(peer.Name);
            var change = FileChange.Of(users, ChangeStage.Grant, null, DurableFile.Everyone);
            changes.Add(change with
            {
                After = UsersFile.With(change.Before, user, users),
                AfterMode = change.Before is null ? DurableFile.Everyone : change.BeforeMode,
                User = user,
            });
        }
        var relayed = own.RelayConfig is not null && !direct;
        foreach (var directory in relayed ? [own.RelayConfig!] : own.AgentConfigs)
            Remote(changes, own, directory, peer, authorities.Pem, certificate, key);
        foreach (var directory in relayed ? own.AgentConfigs : [])
            Local(changes, own, directory, peer);
        // A peer that changes from one way to the other is not read in both.
        if (!relayed && own.RelayConfig is { } relay)
            changes.AddRange(Removal(relay, peer.Name));
        return [.. changes.Where(change => change.Changes)];
    }

    /// <summary>All that is to be removed so that we no longer read a peer and it no longer may read us.</summary>
    public static IReadOnlyList<FileChange> Disconnected(ClusterDescription own, string peer)
    {
        var changes = new List<FileChange>();
        foreach (var directory in Directories(own))
            changes.AddRange(Removal(directory, peer));
        if (own.UsersFile is { } users && FileChange.Content(users) is { } content)
        {
            changes.Add(FileChange.Of(users, ChangeStage.Grant, UsersFile.Without(content, own.UserOf(peer), users), (int)File.GetUnixFileMode(users))
                with
            { User = own.UserOf(peer) });
        }
        return [.. changes.Where(change => change.Changes)];
    }

    /// <summary>The peers that the files of a cluster name, with what is pinned of each.</summary>
    public static IReadOnlyList<PeerFacts> Peers(ClusterDescription own)
    {
        var peers = new SortedDictionary<string, PeerFacts>(StringComparer.Ordinal);
        foreach (var directory in Directories(own).Where(Directory.Exists))
        {
            foreach (var file in Directory.EnumerateFiles(directory))
            {
                var name = Path.GetFileName(file);
                if (name == own.Name || Model.ClusterName.Validate(name) is not null || peers.GetValueOrDefault(name) is { Id: > 0 }
                    || FileChange.Content(file) is not { Length: < 1 << 20 } content || !Encoding.UTF8.GetString(content).Contains("endpoints:"))
                    continue;
                peers[name] = Pins(directory, name);
            }
        }
        return [.. peers.Values];
    }

    /// <summary>Whether a peer file beside a certificate or key names it.</summary>
    public static bool IsNamed(string companion) =>
        Directory.EnumerateFiles(Path.GetDirectoryName(companion)!)
            .Where(file => Model.ClusterName.Validate(Path.GetFileName(file)) is null && FileChange.Content(file) is { Length: < 1 << 20 })
            .Any(file => File.ReadAllText(file) is var text && text.Contains("endpoints:", StringComparison.Ordinal)
                && text.Contains($"/{Path.GetFileName(companion)}", StringComparison.Ordinal));

    private static IEnumerable<string> Directories(ClusterDescription own) =>
        own.RelayConfig is null ? own.AgentConfigs : own.AgentConfigs.Prepend(own.RelayConfig);

    private static IEnumerable<FileChange> Removal(string directory, string peer)
    {
        foreach (var name in new[]
        {
            peer, $"{peer}.imports.json", $"{peer}.etcd-client-ca.crt", $"{peer}.etcd-client.crt", $"{peer}.etcd-client.key",
        })
            yield return FileChange.Of(Path.Combine(directory, name), ChangeStage.Peer, null, 0);
    }

    private static void Remote(
        List<FileChange> changes, ClusterDescription own, string directory, ClusterFacts peer, string authorities, string certificate, string key)
    {
        var prefix = $"{peer.Name}.etcd-client";
        changes.Add(Text(directory, $"{prefix}-ca.crt", authorities));
        changes.Add(Text(directory, $"{prefix}.crt", certificate));
        changes.Add(Text(directory, $"{prefix}.key", key, DurableFile.OwnerOnly));
        changes.Add(Imports(directory, peer));
        changes.Add(Text(directory, peer.Name, ClientFile(own, directory, peer.DoorAddresses, prefix)));
    }

    private static void Local(List<FileChange> changes, ClusterDescription own, string directory, ClusterFacts peer)
    {
        changes.Add(Text(directory, $"{LocalPrefix}-ca.crt", OwnPki.Text(OwnPki.AuthorityFile(own.Pki))) with { Shared = true });
        changes.Add(Text(directory, $"{LocalPrefix}.crt", OwnPki.Text(Path.Combine(own.Pki, "local.crt"))) with { Shared = true });
        changes.Add(Text(directory, $"{LocalPrefix}.key", OwnPki.Text(Path.Combine(own.Pki, "local.key")), DurableFile.OwnerOnly)
            with
        { Shared = true });
        changes.Add(Imports(directory, peer));
        changes.Add(Text(directory, peer.Name, ClientFile(own, directory, own.DoorAddresses, LocalPrefix)));
        // From the time when this peer was read directly.
        foreach (var name in new[] { $"{peer.Name}.etcd-client-ca.crt", $"{peer.Name}.etcd-client.crt", $"{peer.Name}.etcd-client.key" })
            changes.Add(FileChange.Of(Path.Combine(directory, name), ChangeStage.Peer, null, 0));
    }

    private static string ClientFile(ClusterDescription own, string directory, IReadOnlyList<string> endpoints, string prefix)
    {
        var seen = own.MountPath?.TrimEnd('/') ?? directory;
        return $"""
            endpoints:
            {string.Join('\n', endpoints.Select(endpoint => $"- {endpoint}"))}
            trusted-ca-file: {Quoted($"{seen}/{prefix}-ca.crt")}
            key-file: {Quoted($"{seen}/{prefix}.key")}
            cert-file: {Quoted($"{seen}/{prefix}.crt")}

            """;
    }

    /// <summary>A path as Cilium writes it, quoted only when YAML would read something else.</summary>
    private static string Quoted(string path) =>
        path.All(c => char.IsAsciiLetterOrDigit(c) || c is '/' or '.' or '-' or '_') ? path : $"'{path.Replace("'", "''", StringComparison.Ordinal)}'";

    /// <summary>Pins what the peer may say; what an operator wrote there beside it (namespaces, quotas, breaker) stays.</summary>
    private static FileChange Imports(string directory, ClusterFacts peer)
    {
        var name = $"{peer.Name}.imports.json";
        var members = Existing(Path.Combine(directory, name)) ?? new JsonObject { ["namespaces"] = new JsonArray("*") };
        members["clusterID"] = peer.Id;
        members["podCIDRs"] = Ranges(peer.PodCIDRs);
        members["nodeCIDRs"] = Ranges(peer.NodeCIDRs);
        using var buffer = new MemoryStream();
        using (var writer = new Utf8JsonWriter(buffer, new JsonWriterOptions { Indented = true }))
            members.WriteTo(writer);
        return Text(directory, name, Encoding.UTF8.GetString(buffer.ToArray()) + "\n");
    }

    private static JsonObject? Existing(string path)
    {
        try
        {
            return FileChange.Content(path) is { } content ? JsonNode.Parse(content) as JsonObject : null;
        }
        catch (JsonException)
        {
            // A broken one is written anew: it limits nothing as it is.
            return null;
        }
    }

    private static JsonArray Ranges(IEnumerable<string> ranges) =>
        new([.. ranges.Select(range => (JsonNode)Model.IpPrefix.Parse(range).ToString())]);

    private static PeerFacts Pins(string directory, string name)
    {
        if (Existing(Path.Combine(directory, $"{name}.imports.json")) is not { } members)
            return new PeerFacts(name, 0, [], []);
        return new PeerFacts(name, members["clusterID"] is JsonValue id && id.TryGetValue<uint>(out var number) ? number : 0,
            Strings(members["podCIDRs"]), Strings(members["nodeCIDRs"]));
    }

    private static List<string> Strings(JsonNode? node) => node is not JsonArray array ? []
        : [.. array.OfType<JsonValue>().Select(value => value.TryGetValue<string>(out var text) ? text : "")
            .Where(text => Model.IpPrefix.TryParse(text, out _)).Take(ClusterFacts.RangesMax)
            .Select(text => Model.IpPrefix.Parse(text).ToString())];

    private static FileChange Text(string directory, string name, string text, int mode = DurableFile.Everyone) =>
        FileChange.Of(Path.Combine(directory, name), ChangeStage.Peer, Encoding.UTF8.GetBytes(text), mode);
}
