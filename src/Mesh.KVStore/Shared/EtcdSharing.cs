namespace Mesh.KVStore;

/// <summary>
/// Opens stores for many readers, of whom several may read one server with the same credentials, as agents read all their peers at
/// their own relay. Those share one client: its connections, its proof of life, its audits. And where they read prefixes that lie side
/// by side, one watch reads all of these and hands each reader its own. So what is behind a relay costs what happens there, however
/// many peers that comes from. A reader whose options nobody shares has a store of its own. For any thread.
/// </summary>
/// <param name="wider">A prefix that holds the given one and its siblings, to be watched instead when several read there; null for a
/// prefix that is watched by itself. What lies below is told apart by the first segment after the wider prefix.</param>
public sealed class EtcdSharing(Func<string, string?> wider, TimeProvider? time = null)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<(string Endpoints, EtcdOptions Others), SharedEtcd> _servers = [];

    /// <summary>A store for one reader. Disposing the last one of a server closes its connections.</summary>
    /// <exception cref="ArgumentException">The options are impossible; the message names each fault.</exception>
    public IKVStore Open(EtcdOptions options)
    {
        var key = (string.Join('\n', options.Endpoints), options with { Endpoints = [] });
        lock (_lock)
        {
            if (!_servers.TryGetValue(key, out var server))
                _servers[key] = server = new SharedEtcd(new EtcdKVStore(options, time), wider);
            server.Readers++;
            return new SharedReader(server, () => LeaveAsync(key, server));
        }
    }

    private ValueTask LeaveAsync((string, EtcdOptions) key, SharedEtcd server)
    {
        lock (_lock)
        {
            if (--server.Readers > 0)
                return ValueTask.CompletedTask;
            _servers.Remove(key);
        }
        return server.DisposeAsync();
    }
}
