using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

public class ElectionTests
{
    private const string Key = "mesh/test/writer";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static EtcdElection Candidate(EtcdKVStore store, string name, int seconds = 60) =>
        new(store, Key, name, TimeSpan.FromSeconds(seconds), _ => { });

    [Fact]
    public async Task A_deposed_writer_writes_and_deletes_nothing_whatever_it_believes()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var election = Candidate(store, "old");
        var fence = await election.CampaignAsync(Cancellation);
        await using var old = store.Behind(fence);
        await old.WriteAsync([new("a", "1"u8.ToArray()), new("b", "1"u8.ToArray())], Cancellation);

        // As when its lease ended while it was paused: it has heard of nothing.
        await store.WriteAsync([new(Key, "new"u8.ToArray())], Cancellation);
        var fault = await Assert.ThrowsAsync<KVStoreException>(() => old.WriteAsync([new("a", "2"u8.ToArray())], Cancellation));
        Assert.True(fault.Fenced, fault.Message);
        await Assert.ThrowsAsync<KVStoreException>(() => old.WriteAsync([new("b", null)], Cancellation));
        await Assert.ThrowsAsync<KVStoreException>(() => old.DeletePrefixAsync("a", Cancellation));
        Assert.Equal("new writes now", await election.WaitForLossAsync(fence, Cancellation));
        Assert.Equal(("1", "1"), (await store.TextAsync("a"), await store.TextAsync("b")));

        // The control: without the fence it would have.
        await store.WriteAsync([new("a", "2"u8.ToArray()), new("b", null)], Cancellation);
        Assert.Equal(("2", null), (await store.TextAsync("a"), await store.TextAsync("b")));
    }

    [Fact]
    public async Task The_next_one_wins_when_the_first_resigns_and_not_before()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var first = Candidate(store, "first");
        await using var second = Candidate(store, "second");
        var fence = await first.CampaignAsync(Cancellation);
        var waiting = second.CampaignAsync(Cancellation);
        await Deadline.Until(() => second.Holder == "first", "the second to know");
        Assert.False(waiting.IsCompleted);
        await first.ResignAsync(fence, Cancellation);
        Assert.True((await waiting).ModRevision > fence.ModRevision);
        Assert.Equal("our lease has ended", await WithoutKeyAsync(store, second, await waiting));
    }

    [Fact]
    public async Task The_next_one_wins_when_the_lease_of_a_dead_one_ends()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var first = Candidate(store, "first", seconds: 1);
        var fence = await first.CampaignAsync(Cancellation);
        // Its keepalive ends, as with its process.
        await first.DisposeAsync();
        await using var second = Candidate(store, "second");
        await second.CampaignAsync(Cancellation);
        Assert.Equal("second writes now", await first.WaitForLossAsync(fence, Cancellation));
    }

    [Fact]
    public async Task One_that_comes_back_under_its_name_need_not_wait_for_its_former_life()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var former = Candidate(store, "tokyo-1");
        var fence = await former.CampaignAsync(Cancellation);
        await using var now = Candidate(store, "tokyo-1");
        var mine = await now.CampaignAsync(Cancellation);
        await using var behind = store.Behind(mine);
        await behind.WriteAsync([new("a", "1"u8.ToArray())], Cancellation);
        await using var late = store.Behind(fence);
        await Assert.ThrowsAsync<KVStoreException>(() => late.WriteAsync([new("a", "2"u8.ToArray())], Cancellation));
    }

    private static async Task<string> WithoutKeyAsync(EtcdKVStore store, EtcdElection election, WriteFence fence)
    {
        var loss = election.WaitForLossAsync(fence, Cancellation);
        await store.WriteAsync([new(Key, null)], Cancellation);
        return await loss;
    }
}
