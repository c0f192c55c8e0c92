using CsCheck;
using Etcdserverpb;
using Google.Protobuf;
using Mvccpb;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>The audit finds what a watch lost, and nothing when it lost nothing.</summary>
public sealed class WatchPositionTests
{
    [Fact]
    public void Nothing_is_found_when_every_event_arrived() => Assert.Null(Audit(created: true, updated: true, deleted: true));

    [Fact]
    public void A_lost_creation_is_found() =>
        Assert.Contains("c", Audit(created: false, updated: true, deleted: true)!, StringComparison.Ordinal);

    [Fact]
    public void A_lost_update_is_found() =>
        Assert.Contains("a", Audit(created: true, updated: false, deleted: true)!, StringComparison.Ordinal);

    [Fact]
    public void A_lost_delete_is_found() =>
        Assert.Equal("the store holds 2 keys, we hold 3", Audit(created: true, updated: true, deleted: false));

    /// <summary>A count reckoned from events would be right here, since as many creations as deletions were lost, and no name is
    /// missing: yet the reader holds b for ever.</summary>
    [Theory]
    [InlineData("updated")]
    [InlineData("deleted")]
    public void A_lost_delete_is_found_though_a_lost_creation_makes_up_for_it(string whatIsSeenOfC)
    {
        // In the store: b deleted at 11, c created at 12, then changed at 13.
        var position = Listed();
        position.Apply([whatIsSeenOfC == "updated" ? Put("c", 13, version: 2) : Delete("c", 13)]);
        position.BeginAudit(13, whatIsSeenOfC == "updated" ? 2 : 1, whatIsSeenOfC == "updated" ? [Put("c", 13, 2).Kv] : [], 0);
        Assert.NotNull(position.FinishAudit());
    }

    /// <summary>The audit is a digest: over random histories with random losses it finds nothing exactly when the reader holds what the
    /// store does.</summary>
    [Fact]
    public void An_audit_is_silent_if_and_only_if_the_reader_holds_what_the_store_holds() =>
        Gen.Select(Gen.Select(Gen.Int[0, 5], Gen.Bool, Gen.Int[0, 3]).Array[0, 40], Gen.Int[1, 4]).Sample((steps, perAudit) =>
        {
            var store = new SortedDictionary<string, Mvccpb.KeyValue>(StringComparer.Ordinal);
            var reader = new Dictionary<string, long>();
            var position = new WatchPosition(new Random(steps.Length));
            position.Begin(new ResponseHeader { ClusterId = 1, Revision = 1 });
            long revision = 1;
            foreach (var (key, delete, loss) in steps)
            {
                revision++;
                var name = $"k{key}";
                Event happened;
                if (delete && store.Remove(name))
                    happened = Delete(name, revision);
                else
                    store[name] = (happened = Put(name, revision, store.TryGetValue(name, out var old) ? old.Version + 1 : 1)).Kv;
                // One in four is lost.
                if (loss > 0)
                {
                    position.Apply([happened]);
                    if (happened.Type == Event.Types.EventType.Delete)
                        reader.Remove(name);
                    else
                        reader[name] = revision;
                }
                if (revision % perAudit != 0)
                    continue;
                var changed = store.Values.Where(kv => kv.ModRevision > position.AuditedTo).ToList();
                position.BeginAudit(revision, store.Count, changed, 0);
                var same = store.Count == reader.Count
                    && store.All(pair => reader.TryGetValue(pair.Key, out var seen) && seen == pair.Value.ModRevision);
                if (same != position.FinishAudit() is null)
                    return false;
                if (!same)
                    return true;
            }
            return true;
        }, iter: 20_000);

    [Fact]
    public void The_keys_held_are_a_set() =>
        Gen.Select(Gen.Int[0, 60], Gen.Bool).Array[0, 400].Sample(steps =>
        {
            var held = new HeldKeys(17);
            var model = new HashSet<int>();
            foreach (var (key, add) in steps)
            {
                var name = ByteString.CopyFromUtf8($"cilium/state/nodes/v1/{key}");
                if (add)
                {
                    held.Add(name);
                    model.Add(key);
                }
                else
                {
                    held.Remove(name);
                    model.Remove(key);
                }
                if (held.Count != model.Count)
                    return false;
            }
            return true;
        }, iter: 2_000);

    [Fact]
    public void Events_after_the_stores_answer_do_not_count()
    {
        var position = Listed();
        position.BeginAudit(10, 2, [], 0);
        position.Apply([Put("c", 11, version: 1), Put("d", 12, version: 1)]);
        Assert.Null(position.FinishAudit());
        Assert.Equal(4, position.Count);
        Assert.Equal(13, position.Next);
    }

    [Fact]
    public void An_event_under_way_at_the_stores_answer_arrives_in_the_grace()
    {
        var position = Listed();
        position.BeginAudit(11, 3, [new Mvccpb.KeyValue { Key = ByteString.CopyFromUtf8("c"), ModRevision = 11 }], 0);
        position.Apply([Put("c", 11, version: 1)]);
        Assert.Null(position.FinishAudit());
    }

    [Fact]
    public void Events_seen_before_are_dropped()
    {
        var position = Listed();
        Assert.Single(position.Apply([Put("c", 11, version: 1)]));
        Assert.Empty(position.Apply([Put("a", 10, version: 1), Put("c", 11, version: 1)]));
        Assert.Equal(3, position.Count);
    }

    /// <summary>Two keys a and b at revision 10; then c is created, a updated and b deleted, as far as the watch is told.</summary>
    private static string? Audit(bool created, bool updated, bool deleted)
    {
        var position = Listed();
        if (created)
            position.Apply([Put("c", 11, version: 1)]);
        if (updated)
            position.Apply([Put("a", 12, version: 2)]);
        if (deleted)
        {
            position.Apply([Delete("b", 13)]);
        }
        position.BeginAudit(13, 2, [Put("c", 11, 1).Kv, Put("a", 12, 2).Kv], 0);
        return position.FinishAudit();
    }

    private static WatchPosition Listed()
    {
        var position = new WatchPosition(new Random(1));
        position.Begin(new ResponseHeader { ClusterId = 1, Revision = 10 });
        position.List([Put("a", 10, 1).Kv, Put("b", 10, 1).Kv]);
        return position;
    }

    private static Event Delete(string key, long revision) => new()
    {
        Type = Event.Types.EventType.Delete,
        Kv = new() { Key = ByteString.CopyFromUtf8(key), ModRevision = revision },
    };

    private static Event Put(string key, long revision, long version) => new()
    {
        Type = Event.Types.EventType.Put,
        Kv = new() { Key = ByteString.CopyFromUtf8(key), ModRevision = revision, CreateRevision = revision, Version = version },
    };
}
