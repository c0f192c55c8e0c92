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
        Assert.Equal("the store holds 2 keys, we read 3", Audit(created: true, updated: true, deleted: false));

    [Fact]
    public void Events_after_the_stores_answer_do_not_count()
    {
        var position = Listed();
        position.BeginAudit(10, 2, [], 0);
        position.Apply([Put("c", 11, version: 1), Put("d", 12, version: 1)]);
        Assert.Null(position.FinishAudit(0));
        Assert.Equal(4, position.Count);
        Assert.Equal(13, position.Next);
    }

    [Fact]
    public void An_event_under_way_at_the_stores_answer_arrives_in_the_grace()
    {
        var position = Listed();
        position.BeginAudit(11, 3, [new Mvccpb.KeyValue { Key = ByteString.CopyFromUtf8("c"), ModRevision = 11 }], 0);
        position.Apply([Put("c", 11, version: 1)]);
        Assert.Null(position.FinishAudit(0));
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
            var kv = new Mvccpb.KeyValue { Key = ByteString.CopyFromUtf8("b"), ModRevision = 13 };
            position.Apply([new Event { Type = Event.Types.EventType.Delete, Kv = kv }]);
        }
        position.BeginAudit(13, 2, [Put("c", 11, 1).Kv, Put("a", 12, 2).Kv], 0);
        return position.FinishAudit(0);
    }

    private static WatchPosition Listed()
    {
        var position = new WatchPosition();
        position.Begin(new ResponseHeader { ClusterId = 1, Revision = 10 }, 2);
        return position;
    }

    private static Event Put(string key, long revision, long version) => new()
    {
        Type = Event.Types.EventType.Put,
        Kv = new() { Key = ByteString.CopyFromUtf8(key), ModRevision = revision, CreateRevision = revision, Version = version },
    };
}
