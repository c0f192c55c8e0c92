using System.Buffers.Binary;
using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.ClusterMesh.Wire;
using Mesh.ControlPlane;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.Agent.Publishing;

/// <summary>
/// One number for one set of labels, whoever asks: agents need no leader for it. The labels say where in the cluster's range to begin, and
/// creating the CiliumIdentity of that name is what the API server lets only one agent do: a second one finds the object there, and either it
/// has the same labels and is the answer, or the next number is tried. Numbers that were in the way earlier may be free by now, so whoever
/// has created one looks whether the labels had a number already: the oldest is the one that everybody takes, and the newer one goes.
/// </summary>
internal sealed class IdentityAllocator(KubeClient client, ClusterIdentity cluster, IdentityNumbering numbering)
{
    /// <summary>On each identity: a digest of its labels, to find those with the same ones.</summary>
    public const string DigestLabel = "mesh.cilium.io/labels-digest";

    /// <summary>The lowest numbers of every range are kept clear of, as those of reserved identities.</summary>
    private const uint KeptClear = 256;

    private readonly Lock _lock = new();
    private readonly Dictionary<uint, Known> _byNumber = [];
    private readonly Dictionary<string, SortedSet<Known>> _byLabels = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Task<uint>> _running = new(StringComparer.Ordinal);

    /// <summary>Identities seen so far.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
                return _byNumber.Count;
        }
    }

    /// <summary>Takes over what the source says. Foreign numbers are none of ours to give.</summary>
    /// <returns>Labels whose number may be another than before.</returns>
    public IReadOnlyList<string> Observe(CiliumIdentity identity, bool present)
    {
        if (!uint.TryParse(identity.Metadata.Name, NumberStyles.None, CultureInfo.InvariantCulture, out var number) || !numbering.InRange(cluster.Id, number))
            return [];
        var touched = new List<string>();
        lock (_lock)
        {
            if (_byNumber.Remove(number, out var before))
            {
                touched.Add(before.Text);
                if (_byLabels[before.Text].Remove(before) && _byLabels[before.Text].Count == 0)
                    _byLabels.Remove(before.Text);
            }
            if (present && SecurityLabels.Of(identity) is { } labels)
                touched.Add(Note(number, labels, identity.Metadata));
        }
        return touched;
    }

    /// <summary>The labels' number, as far as it has been seen; null for none.</summary>
    public uint? Find(SecurityLabels labels)
    {
        lock (_lock)
            return _byLabels.TryGetValue(labels.Text, out var known) ? known.Min!.Number : null;
    }

    /// <summary>The labels' number, made when there is none. Asked for twice at once, it is made once.</summary>
    /// <exception cref="KubeApiException">The server is away or refuses; ask again.</exception>
    /// <exception cref="InvalidOperationException">The cluster's range is full.</exception>
    public async Task<uint> AllocateAsync(SecurityLabels labels, CancellationToken cancellation)
    {
        Task<uint> running;
        lock (_lock)
        {
            if (_byLabels.TryGetValue(labels.Text, out var known))
                return known.Min!.Number;
            if (!_running.TryGetValue(labels.Text, out running!))
                _running[labels.Text] = running = Task.Run(() => MakeAsync(labels, cancellation), CancellationToken.None);
        }
        try
        {
            return await running;
        }
        finally
        {
            lock (_lock)
            {
                if (_running.GetValueOrDefault(labels.Text) == running)
                    _running.Remove(labels.Text);
            }
        }
    }

    private async Task<uint> MakeAsync(SecurityLabels labels, CancellationToken cancellation)
    {
        var first = numbering.MinOf(cluster.Id) + KeptClear;
        var size = numbering.MaxOf(cluster.Id) - first + 1;
        var start = (uint)(BinaryPrimitives.ReadUInt64LittleEndian(labels.Digest) % size);
        for (uint step = 0; step < size; step++)
        {
            var number = first + (start + step) % size;
            if (IsTaken(number, labels))
                continue;
            if (await TryTakeAsync(number, labels, cancellation) is { } taken)
                return taken;
        }
        throw new InvalidOperationException($"all {size} identities of cluster {cluster.Name} are in use: remove CiliumIdentity objects that no pod has, "
            + "or leave labels out that are different for every pod");
    }

    private bool IsTaken(uint number, SecurityLabels labels)
    {
        lock (_lock)
            return _byNumber.TryGetValue(number, out var known) && known.Text != labels.Text;
    }

    /// <summary>Null when the number is that of other labels.</summary>
    private async Task<uint?> TryTakeAsync(uint number, SecurityLabels labels, CancellationToken cancellation)
    {
        var name = number.ToString(CultureInfo.InvariantCulture);
        while (true)
        {
            try
            {
                var created = await client.CreateAsync(KubeResources.CiliumIdentities.Raw, null, ObjectOf(name, labels), cancellation);
                return await OldestAsync(number, labels, created["metadata"]?["uid"]?.GetValue<string>(), cancellation);
            }
            catch (KubeApiException e) when (e.Fault == KubeFault.AlreadyExists)
            {
                // By another agent, or by ourselves when the answer was lost on the way.
            }
            var present = await client.FindAsync(KubeResources.CiliumIdentities, null, name, cancellation);
            if (present is null)
                continue;
            if (SecurityLabels.Of(present)?.Equals(labels) != true)
                return null;
            lock (_lock)
                Note(number, labels, present.Metadata);
            return number;
        }
    }

    /// <summary>Of all identities with these labels the oldest; when that is not the one just made, the new one is taken back.</summary>
    private async Task<uint> OldestAsync(uint made, SecurityLabels labels, string? uid, CancellationToken cancellation)
    {
        var same = await client.ListAsync(KubeResources.CiliumIdentities, null, cancellation,
            new KubeSelection { LabelSelector = $"{DigestLabel}={DigestOf(labels)}" });
        var candidates = new SortedSet<Known>();
        foreach (var identity in same)
        {
            if (SecurityLabels.Of(identity)?.Equals(labels) == true && uint.TryParse(identity.Metadata.Name, NumberStyles.None,
                CultureInfo.InvariantCulture, out var number) && numbering.InRange(cluster.Id, number))
                candidates.Add(Known.Of(number, labels.Text, identity.Metadata));
        }
        var oldest = candidates.Min;
        if (oldest is not null && oldest.Number != made)
            await client.DeleteAsync(KubeResources.CiliumIdentities, null, made.ToString(CultureInfo.InvariantCulture), cancellation,
                new KubeDelete { Uid = uid });
        lock (_lock)
        {
            if (oldest is not null && !_byNumber.ContainsKey(oldest.Number))
                Add(oldest);
        }
        return oldest?.Number ?? made;
    }

    private string Note(uint number, SecurityLabels labels, ObjectMeta metadata)
    {
        if (!_byNumber.ContainsKey(number))
            Add(Known.Of(number, labels.Text, metadata));
        return labels.Text;
    }

    private void Add(Known known)
    {
        _byNumber[known.Number] = known;
        if (!_byLabels.TryGetValue(known.Text, out var same))
            _byLabels[known.Text] = same = [];
        same.Add(known);
    }

    private static JsonObject ObjectOf(string name, SecurityLabels labels)
    {
        var listed = new JsonObject();
        foreach (var (key, value) in labels.Labels)
            listed[key] = value;
        return new JsonObject
        {
            ["metadata"] = new JsonObject
            {
                ["name"] = name,
                ["labels"] = new JsonObject
                {
                    [DigestLabel] = DigestOf(labels),
                    [IdentityLabels.NamespaceKey] = labels.Labels.GetValueOrDefault($"{IdentityLabels.KubernetesSource}:{IdentityLabels.NamespaceKey}"),
                },
            },
            ["security-labels"] = listed,
        };
    }

    private static string DigestOf(SecurityLabels labels) => Convert.ToHexStringLower(labels.Digest.AsSpan(0, 16));

    /// <summary>Sorts by age: time of creation in seconds, then the revision, then the number.</summary>
    private sealed record Known(uint Number, string Text, DateTimeOffset Created, ulong Revision) : IComparable<Known>
    {
        public static Known Of(uint number, string text, ObjectMeta metadata) => new(number, text, metadata.CreationTimestamp ?? DateTimeOffset.MinValue,
            ulong.TryParse(metadata.ResourceVersion, NumberStyles.None, CultureInfo.InvariantCulture, out var revision) ? revision : 0);

        public int CompareTo(Known? other) => other is null
            ? 1
            : (Created, Revision, Number).CompareTo((other.Created, other.Revision, other.Number));
    }
}
