using System.Text;
using CsCheck;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>Random writes, and random faults between them: whatever happened, the reader ends with what the store holds.</summary>
public sealed class ListWatchModelTests
{
    private static readonly Gen<(int Key, int Value)[]> Writes = Gen.Select(Gen.Int[0, 12], Gen.Int[-3, 9]).Array[1, 60];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public void In_memory_over_any_fault() => Gen.Select(Writes, Gen.Int[0, 5].Array[1, 60]).Sample((writes, faults) =>
    {
        RunInMemoryAsync(writes, faults).GetAwaiter().GetResult();
    }, iter: 100, threads: 1);

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task In_etcd_over_kills(int seed)
    {
        await using var server = await EtcdServer.StartAsync();
        await using var store = server.NewStore();
        await using var reader = new Reader(store, "w/");
        var random = new Random(seed);
        var model = new SortedDictionary<string, string>(StringComparer.Ordinal);
        for (var step = 0; step < 400; step++)
        {
            var operation = Operation((random.Next(30), random.Next(-3, 1000)), model);
            await store.WriteAsync([operation], Cancellation);
            if (random.Next(80) != 0)
                continue;
            await (random.Next(2) == 0 ? server.KillAsync() : server.StopAsync());
            await server.RestartAsync();
        }
        await reader.UntilAsync(Text(model));
        Assert.Equal(0, reader.Backwards);
        Assert.Equal(1, reader.Lists);
    }

    private static async Task RunInMemoryAsync((int Key, int Value)[] writes, int[] faults)
    {
        await using var store = new InMemoryKVStore();
        await using var reader = new Reader(store, "w/");
        var model = new SortedDictionary<string, string>(StringComparer.Ordinal);
        var cut = false;
        for (var i = 0; i < writes.Length; i++)
        {
            switch (faults[i % faults.Length])
            {
                case 1: store.Disconnect(); cut = true; break;
                case 2: store.Connect(); cut = false; break;
                case 3: store.Compact(); break;
                case 4 when i % 7 == 0: store.Wipe(); model.Clear(); break;
                default: await Task.Yield(); break;
            }
            if (!cut)
                await store.WriteAsync([Operation(writes[i], model)], Cancellation);
        }
        store.Connect();
        await reader.UntilAsync(Text(model));
    }

    private static WriteOperation Operation((int Key, int Value) write, SortedDictionary<string, string> model)
    {
        var key = $"w/{write.Key:00}";
        if (write.Value < 0)
        {
            model.Remove(key);
            return new WriteOperation(key, null);
        }
        model[key] = $"{write.Value}";
        return new WriteOperation(key, Encoding.UTF8.GetBytes(model[key]));
    }

    private static string Text(SortedDictionary<string, string> model) => string.Join(' ', model.Select(m => $"{m.Key}={m.Value}"));
}
