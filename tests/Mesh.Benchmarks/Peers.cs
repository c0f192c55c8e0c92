using System.Diagnostics;
using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.Datapath;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.TestKit;

namespace Mesh.Benchmarks;

/// <summary>
/// A mesh as large as its numbering: one agent, and one relay, with up to 510 peers (511 clusters are 510 and oneself), mocked as
/// prefixes of a few real etcds. The agent reads them directly, then through the relay. Measured are the time from the start of the
/// process until every address is in the kernel, the memory of agent and relay, and what one event costs: the same number of events at
/// the same pace, on one peer with nothing else attached, and spread over all peers, with the idle cost of the peers included.
/// The agent is given ipcache maps that hold them all.
/// </summary>
internal static class Peers
{
    public static readonly string[] Sizes = ["peers", "entries", "etcds", "eventrate", "eventseconds", "ways"];

    private const int KeysPerWrite = 20_000;
    private const int AddressesPerPeer = 8192;
    private const int IdentitiesPerRun = 500;
    private const double AimRatio = 1.15;
    private static readonly IdentityNumbering Numbering = IdentityNumbering.Max511;
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan HeartbeatInterval = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(4);

    /// <summary>Processor time for each event, idle time included, and the share of one processor while nothing happens.</summary>
    private sealed record Cost(TimeSpan AgentPerEvent, double AgentIdle, TimeSpan RelayPerEvent, double RelayIdle);

    private sealed record Sync(TimeSpan Time, long Rss, long Settled, long Peak, TimeSpan Cpu);

    private sealed record Setting(int Peers, int Entries, EtcdServer[] Etcds, EtcdKVStore[] Stores, int Rate, int Seconds)
    {
        public int Total => Peers * Entries;

        /// <summary>The latest identities begin here.</summary>
        public int Identity { get; set; }

        public EtcdKVStore StoreOf(int peer) => Stores[peer % Stores.Length];

        /// <summary>Each with credentials of its own, as different clusters give them: who reads two with the same ones at one address
        /// may take them for one server.</summary>
        public KeyValuePair<string, string>[] Files(int peers) => [.. Enumerable.Range(0, peers).Select(peer =>
        {
            var (name, options) = (ClusterOf(peer).Name, Etcds[peer % Etcds.Length].Options);
            var certificate = Path.Combine(Etcds[0].WorkDirectory, $"{name}.crt");
            File.Copy(options.CertFile!, certificate, overwrite: true);
            return KeyValuePair.Create(name, ClientFile.Of(options with { CertFile = certificate }));
        })];
    }

    public static async Task RunAsync(Report report, Settings settings, CancellationToken cancellation)
    {
        var (peers, entries) = (settings.Of("peers", 510), settings.Of("entries", 200));
        if (peers > 510 || entries > AddressesPerPeer)
            throw new ArgumentException($"{peers} peers of {entries} entries: allowed are 510 peers, {AddressesPerPeer} entries each");
        var etcds = new List<EtcdServer>();
        var stores = new List<EtcdKVStore>();
        try
        {
            for (var i = 0; i < settings.Of("etcds", 2); i++)
            {
                etcds.Add(await EtcdServer.StartAsync(tls: true, "--heartbeat-interval", "100", "--election-timeout", "1000",
                    "--quota-backend-bytes", "8589934592"));
                stores.Add(etcds[^1].NewStore());
            }
            var setting = new Setting(peers, entries, [.. etcds], [.. stores], settings.Of("eventrate", 325), settings.Of("eventseconds", 10));
            await FillAsync(setting, cancellation);
            // Whoever reads for minutes leaves a cluster that shows no sign of life meanwhile.
            using var measured = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            var beating = BeatAsync(setting, measured.Token);
            try
            {
                await MeasureAsync(report, setting, settings.Of("ways", 2) > 1, cancellation);
            }
            finally
            {
                await measured.CancelAsync();
                await beating;
            }
        }
        finally
        {
            foreach (var store in stores)
                await store.DisposeAsync();
            foreach (var etcd in etcds)
                await etcd.DisposeAsync();
        }
    }

    private static async Task MeasureAsync(Report report, Setting setting, bool alsoDirect, CancellationToken cancellation)
    {
        if (alsoDirect)
        {
            var one = await AgentAsync(setting, 1, setting.Files(1), null, cancellation);
            var direct = await AgentAsync(setting, setting.Peers, setting.Files(setting.Peers), null, cancellation);
            Tell(report, setting, "direct", direct.Sync);
            Tell(report, setting, "agent, direct", one.Cost.AgentPerEvent, direct.Cost.AgentPerEvent, one.Cost.AgentIdle, direct.Cost.AgentIdle);
        }

        var oneRelayed = await RelayedAsync(setting, 1, Path.Combine(setting.Etcds[0].WorkDirectory, "relay-1"), cancellation);
        var relayed = await RelayedAsync(setting, setting.Peers, Path.Combine(setting.Etcds[0].WorkDirectory, "relay-all"), cancellation);
        report.Add(string.Create(CultureInfo.InvariantCulture, $"{setting.Peers} peers × {setting.Entries:N0} entries, relay: start → all mirrored"),
            string.Create(CultureInfo.InvariantCulture, $"{relayed.Relay.Time.TotalSeconds:0.0} s ({relayed.Relay.Cpu.TotalSeconds:0.0} s of CPU)"));
        Memory(report, setting, "relay", relayed.Relay);
        Tell(report, setting, "through the relay", relayed.Agent.Sync);
        Tell(report, setting, "agent, relayed", oneRelayed.Agent.Cost.AgentPerEvent, relayed.Agent.Cost.AgentPerEvent,
            oneRelayed.Agent.Cost.AgentIdle, relayed.Agent.Cost.AgentIdle);
        Tell(report, setting, "relay", oneRelayed.Agent.Cost.RelayPerEvent, relayed.Agent.Cost.RelayPerEvent,
            oneRelayed.Agent.Cost.RelayIdle, relayed.Agent.Cost.RelayIdle);
    }

    private static void Tell(Report report, Setting setting, string way, Sync sync)
    {
        var culture = CultureInfo.InvariantCulture;
        report.Add(string.Create(culture, $"{setting.Peers} peers × {setting.Entries:N0} entries, {way}: agent's start → all in the kernel"),
            string.Create(culture, $"{sync.Time.TotalSeconds:0.0} s ({sync.Cpu.TotalSeconds:0.0} s of CPU)"));
        Memory(report, setting, "agent", sync);
    }

    private static void Memory(Report report, Setting setting, string who, Sync sync) =>
        report.Add($"  memory of the {who} then, {Settling.TotalSeconds:0} s later, and its peak",
            string.Create(CultureInfo.InvariantCulture,
                $"{sync.Rss / 1e6:0} MB, {sync.Settled / 1e6:0} MB ({(double)sync.Settled / setting.Total:0} B/entry), {sync.Peak / 1e6:0} MB"));

    private static void Tell(Report report, Setting setting, string who, TimeSpan one, TimeSpan all, double oneIdle, double allIdle)
    {
        var ratio = all / one;
        var culture = CultureInfo.InvariantCulture;
        report.Add(string.Create(culture, $"  CPU of the {who} per event at {setting.Peers} peers, {setting.Rate} events/s in all"),
            string.Create(culture, $"{all.TotalMicroseconds:0} µs"), string.Create(culture, $"at 1 peer: {one.TotalMicroseconds:0} µs"), ratio,
            string.Create(culture, $"≤ {AimRatio} × at 1 peer"), ratio <= AimRatio);
        report.Add("    of a processor while nothing happens", string.Create(culture, $"{100 * allIdle:0.0} %"),
            string.Create(culture, $"at 1 peer: {100 * oneIdle:0.0} %"));
    }

    private static async Task<(Sync Relay, (Sync Sync, Cost Cost) Agent)> RelayedAsync(
        Setting setting, int peers, string directory, CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        await using var relay = await RelayProcess.StartAsync(
            setting.Etcds[0], Directory.CreateDirectory(directory).FullName, setting.Files(peers), Numbering.MaxConnectedClusters, cancellation);
        await using var store = new EtcdKVStore(relay.Options);
        while (await store.CountAsync("cilium/cache/ip/v1/", cancellation) < peers * setting.Entries)
        {
            if (clock.Elapsed > Patience)
                throw new TimeoutException($"the relay has not mirrored everything after {Patience}:\n{relay.LogTail}");
            await Task.Delay(20, cancellation);
        }
        var (time, rss, cpu) = (clock.Elapsed, relay.Memory("VmRSS"), relay.Cpu);
        await Task.Delay(Settling, cancellation);
        var sync = new Sync(time, rss, relay.Memory("VmRSS"), relay.Memory("VmHWM"), cpu);
        var file = ClientFile.Of(relay.Options);
        var files = setting.Files(peers).Select(pair => KeyValuePair.Create(pair.Key, file)).ToArray();
        return (sync, await AgentAsync(setting, peers, files, relay, cancellation));
    }

    private static async Task<(Sync Sync, Cost Cost)> AgentAsync(
        Setting setting, int peers, KeyValuePair<string, string>[] files, RelayProcess? relay, CancellationToken cancellation)
    {
        using var node = new Node();
        var clock = Stopwatch.StartNew();
        await using var agent = AgentProcess.Start(node, files, Numbering,
            ipcacheMax: Math.Max(DatapathOptions.IPCacheMapMaxDefault, (uint)(setting.Total * 5L / 4)));
        await SyncedAsync(setting, agent, peers, cancellation);
        var (time, rss, cpu) = (clock.Elapsed, agent.Memory("VmRSS"), agent.Cpu);
        await Task.Delay(Settling, cancellation);
        var sync = new Sync(time, rss, agent.Memory("VmRSS"), agent.Memory("VmHWM"), cpu);
        // The first ones run code that has not run before.
        await EventsAsync(setting, agent, peers, setting.Rate, cancellation);
        var idle = await MeasureAsync(agent, relay, () => Task.Delay(TimeSpan.FromSeconds(setting.Seconds / 2.0), cancellation));
        var events = setting.Rate * setting.Seconds;
        var busy = await MeasureAsync(agent, relay, () => EventsAsync(setting, agent, peers, events, cancellation));
        return (sync, new Cost(busy.Agent / events, idle.Agent / idle.Time, busy.Relay / events, idle.Relay / idle.Time));
    }

    private static async Task<(TimeSpan Agent, TimeSpan Relay, TimeSpan Time)> MeasureAsync(AgentProcess agent, RelayProcess? relay, Func<Task> work)
    {
        var (ofAgent, ofRelay) = (agent.Cpu, relay?.Cpu ?? TimeSpan.Zero);
        var clock = Stopwatch.StartNew();
        await work();
        return (agent.Cpu - ofAgent, (relay?.Cpu ?? TimeSpan.Zero) - ofRelay, clock.Elapsed);
    }

    /// <summary>Every entry is looked up, each until it is there.</summary>
    private static async Task SyncedAsync(Setting setting, AgentProcess agent, int peers, CancellationToken cancellation)
    {
        var (peer, entry) = (0, 0);
        await agent.UntilAsync(() =>
        {
            for (; peer < peers; peer++, entry = 0)
            {
                for (; entry < setting.Entries; entry++)
                {
                    if (agent.IdentityOf(Address(peer, entry)) == 0)
                        return false;
                }
            }
            return true;
        }, $"the entries of {peers} peers in the kernel", cancellation, Patience, everyMilliseconds: 10);
    }

    /// <summary>Single puts at a steady pace, one peer after the other; returns when the kernel has the last of each.</summary>
    private static async Task EventsAsync(
        Setting setting, AgentProcess agent, int peers, int events, CancellationToken cancellation)
    {
        setting.Identity += IdentitiesPerRun;
        var began = Stopwatch.GetTimestamp();
        var puts = new List<Task>();
        for (var i = 0; i < events; i++)
        {
            var wait = Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), began + (i * Stopwatch.Frequency / setting.Rate));
            if (wait > TimeSpan.Zero)
                await Task.Delay(wait, cancellation);
            puts.Add(setting.StoreOf(i % peers).WriteAsync([Entry(i % peers, EntryOf(i), IdentityOf(i))], cancellation));
        }
        await Task.WhenAll(puts);
        var lasts = Math.Min(events, peers);
        var last = Enumerable.Range(events - lasts, lasts).ToList();
        await agent.UntilAsync(() => last.TrueForAll(i =>
                agent.IdentityOf(Address(i % peers, EntryOf(i))) == ClusterOf(i % peers).Identity(IdentityOf(i))),
            "the last events in the kernel", cancellation, everyMilliseconds: 20);

        int EntryOf(int number) => number / peers % setting.Entries;
        // Each event changes something, also when entries come round again.
        int IdentityOf(int number) => setting.Identity + (number / peers / setting.Entries);
    }

    /// <summary>The heartbeats of the mocked clusters, as often as an API server writes them. Ends by cancellation.</summary>
    private static async Task BeatAsync(Setting setting, CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(HeartbeatInterval);
        try
        {
            while (await timer.WaitForNextTickAsync(cancellation))
                await Task.WhenAll(setting.Stores.Select(store => store.WriteAsync([.. MockCluster.Heartbeat()], cancellation)));
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
    }

    private static async Task FillAsync(Setting setting, CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        await Task.WhenAll(setting.Stores.Select((store, number) => Task.Run(async () =>
        {
            await store.WriteAsync([.. MockCluster.Heartbeat()], cancellation);
            var operations = new List<WriteOperation>();
            for (var peer = number; peer < setting.Peers; peer += setting.Stores.Length)
            {
                operations.AddRange(ClusterOf(peer).Announcement());
                for (var entry = 0; entry < setting.Entries; entry++)
                    operations.Add(Entry(peer, entry, 0));
                if (operations.Count >= KeysPerWrite || peer + setting.Stores.Length >= setting.Peers)
                {
                    await store.WriteAsync([.. operations], cancellation);
                    operations.Clear();
                }
            }
        }, cancellation)));
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"bench: {setting.Total:N0} entries written in {clock.Elapsed.TotalSeconds:0} s"));
    }

    private static MockCluster ClusterOf(int peer) =>
        new(string.Create(CultureInfo.InvariantCulture, $"c{peer + 2:d3}"), (uint)peer + 2, Cached: true, Numbering);

    private static WriteOperation Entry(int peer, int entry, int identity)
    {
        var cluster = ClusterOf(peer);
        return cluster.Entry(Address(peer, entry), cluster.Identity(identity), IpAddr.V4((172u << 24 | 16u << 16) + ((uint)peer << 8) + 1));
    }

    private static IpAddr Address(int peer, int entry) => IpAddr.V4((10u << 24 | 64u << 16) + ((uint)peer * AddressesPerPeer) + (uint)entry);
}
