using System.Text;
using Mesh.KVStore;

namespace Mesh.Lab;

/// <summary>
/// A hostile writer: puts the same keys into an etcd again and again, faster than their owner puts them right. It has all that the
/// owner's own etcd asks for, and only what its readers check stands against it.
/// </summary>
/// <param name="configFile">etcd client file.</param>
public sealed class Insistence(string configFile, IReadOnlyList<(string Key, string Value)> records)
{
    /// <summary>A tenth of the time after which an API server repairs a key again.</summary>
    private static readonly TimeSpan Every = TimeSpan.FromMilliseconds(25);

    /// <summary>Until cancelled; an etcd that does not answer is tried again.</summary>
    public async Task RunAsync(CancellationToken stop)
    {
        await using var store = new EtcdKVStore(EtcdConfigFile.Parse(await File.ReadAllTextAsync(configFile, stop)));
        var writes = records.Select(record => new WriteOperation(record.Key, Encoding.UTF8.GetBytes(record.Value))).ToList();
        while (!stop.IsCancellationRequested)
        {
            try
            {
                await store.WriteAsync(writes, stop);
            }
            catch (KVStoreException e)
            {
                Console.Error.WriteLine($"not written, trying again: {e.Message}");
            }
            await Task.Delay(Every, stop);
        }
    }
}
