using Mesh.Bpf;

namespace Mesh.Datapath.Tests.Binding;

public sealed class BpfMapTests
{
    private const uint NoPrealloc = 1;

    [Fact]
    public void An_entry_can_be_written_read_and_removed()
    {
        using var map = Hash(16);

        map.Set(7, 70);

        Assert.True(map.TryGet(7, out var value));
        Assert.Equal(70ul, value);
        Assert.True(map.Remove(7));
        Assert.False(map.Remove(7));
        Assert.False(map.TryGet(7, out _));
    }

    [Fact]
    public void A_batch_is_written_dumped_and_removed_whole()
    {
        const int count = 5000;
        using var map = Hash(count);
        var keys = Enumerable.Range(1, count).Select(i => (uint)i).ToArray();

        var written = map.SetBatch(keys, [.. keys.Select(key => key * 10ul)], (index, error) => Assert.Fail($"{index}: {error.Message}"));

        Assert.Equal(count, written);
        Assert.Equal(keys.Select(key => KeyValuePair.Create(key, key * 10ul)), map.Dump().OrderBy(pair => pair.Key));
        Assert.Equal(count / 2, map.RemoveBatch(keys.Where(key => key % 2 == 0).Concat([999_999u, 999_998u]).ToArray()));
        Assert.Equal(count / 2, map.Dump().Count);
    }

    [Fact]
    public void A_full_map_refuses_the_rest_one_by_one_and_names_itself()
    {
        using var map = Hash(100);
        var keys = Enumerable.Range(1, 150).Select(i => (uint)i).ToArray();
        var refused = new List<BpfException>();

        var written = map.SetBatch(keys, new ulong[150], (_, error) => refused.Add(error));

        Assert.Equal(150, written + refused.Count);
        Assert.Equal(written, map.Dump().Count);
        Assert.True(refused.Count > 0);
        Assert.All(refused, error => Assert.IsType<BpfMapFullException>(error));
        Assert.All(refused, error => Assert.Equal("map test is full: it holds 100 entries", error.Message));
        // What is there may still be replaced.
        map.Set(map.Dump()[0].Key, 5);
        Assert.Throws<BpfMapFullException>(() => map.Set(1_000_000, 1));
    }

    [Fact]
    public void A_dump_grows_its_chunk_when_a_bucket_holds_more()
    {
        // A trie walks by keys; a small hash table with everything in few buckets walks by buckets. Both must give all.
        using var trie = new BpfMap<ulong, uint>("trie", BpfMaps.Create("trie", MapInfo.TypeLpmTrie, 8, 4, 4096, NoPrealloc));
        for (uint i = 0; i < 3000; i++)
            trie.Set(32 | (ulong)i << 32, i);

        Assert.Equal(Enumerable.Range(0, 3000).Select(i => (uint)i), trie.Dump().Select(pair => pair.Value).Order());
    }

    [Fact]
    public void A_wrong_type_is_caught_when_the_map_is_opened()
    {
        var error = Assert.Throws<BpfException>(() => new BpfMap<uint, uint>("test", BpfMaps.Create("test", MapInfo.TypeHash, 4, 8, 1)));

        Assert.Contains("map test has keys of 4 and values of 8 bytes, but UInt32 has 4 and UInt32 has 4", error.Message);
    }

    [Fact]
    public void A_per_cpu_value_is_read_for_every_possible_cpu()
    {
        using var map = new BpfMap<uint, ulong>("percpu", BpfMaps.Create("percpu", MapInfo.TypePerCpuArray, 4, 8, 1));

        Assert.Equal(PossibleCpus.Count, map.GetPerCpu(0)!.Length);
        Assert.Null(map.GetPerCpu(5));
    }

    [Fact]
    public void A_mapped_array_and_the_map_are_the_same_memory()
    {
        var fd = BpfMaps.Create("array", MapInfo.TypeArray, 4, 8, 10, MapInfo.FlagMmapable);
        using var array = new MmapArray<ulong>("array", fd);
        using var map = new BpfMap<uint, ulong>("array", BpfMaps.Create("other", MapInfo.TypeArray, 4, 8, 10, MapInfo.FlagMmapable));

        array.Publish(3, 42);

        Assert.Equal(42ul, array.Observe(3));
        Assert.Equal(42ul, array.Span[3]);
        Assert.Throws<ArgumentOutOfRangeException>(() => array.Publish(10, 1));
        Assert.True(map.TryGet(3, out var untouched));
        Assert.Equal(0ul, untouched);
    }

    [Fact]
    public void An_array_that_cannot_be_mapped_says_so()
    {
        var error = Assert.Throws<BpfException>(() => new MmapArray<ulong>("array", BpfMaps.Create("array", MapInfo.TypeArray, 4, 8, 10)));

        Assert.Contains("map array is not a memory-mappable array", error.Message);
    }

    [Fact]
    public void The_barrier_waits_and_returns()
    {
        using var barrier = new RcuBarrier();

        barrier.Wait();
        barrier.Wait();
    }

    private static BpfMap<uint, ulong> Hash(uint entries) =>
        new("test", BpfMaps.Create("test", MapInfo.TypeHash, 4, 8, entries, NoPrealloc));
}
