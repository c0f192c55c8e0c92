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
/// the same pace, on one peer with nothing else attached, and spread over all peers. What happens at rest is measured beside, and told
/// with and without.
/// <para>Many peers are also many entries: large tables fit no processor's cache, whoever fills them. So there is a third crowd, one peer
/// that has as many entries as all (or as a peer may have), and the two effects are told apart. The crowds take turns, forth and back,
/// so that what else the machine does falls on all of them.</para>
/// The agent is given ipcache maps that hold them all.
/// </summary>
internal static class Peers
{
    public static readonly string[] Sizes = ["peers", "entries", "etcds", "eventrate", "eventseconds", "ways", "rounds"];

    private const int KeysPerWrite = 20_000;
    private const int AddressesPerPeer = 8192;

    /// <summary>Of the 300,000 records that a peer may have.</summary>
    private const int EntriesOfLarge = 290_000;
    private const int IdentitiesPerRun = 500;
    private const double AimRatio = 1.15;
    private static readonly IdentityNumbering Numbering = IdentityNumbering.Max511;
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan HeartbeatInterval = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(4);

    /// <summary>Processor time for each event, idle time included, and the share of one processor while nothing happens.</summary>
    /// <param name="Together">Events to a write of the relay's journal: events that come close to each other are committed together. Zero
    /// without a relay.</param>
    private sealed record Cost(TimeSpan PerEvent, double Idle, double EventsPerSecond, double Together)
    {
        public TimeSpan WithoutIdle => PerEvent - TimeSpan.FromSeconds(Idle / EventsPerSecond);
    }

    private sealed record Sync(TimeSpan Time, long Rss, long Settled, long Peak, TimeSpan Cpu);

    /// <summary>One run of one crowd.</summary>
    private sealed record Result(Sync Agent, Cost AgentCost, Sync? Relay, Cost? RelayCost);

    /// <summary>One cluster of a crowd: where it is mocked, and its addresses, which begin at <paramref name="First"/>.</summary>
    private sealed record Peer(MockCluster Cluster, int Etcd, uint First, int Number)
    {
        public IpAddr Address(int entry) => IpAddr.V4(First + (uint)entry);

        public WriteOperation Entry(int entry, int identity) =>
            Cluster.Entry(Address(entry), Cluster.Identity(identity), IpAddr.V4((172u << 24 | 16u << 16) + ((uint)Number << 8) + 1));
    }

    /// <summary>Who is read in one run.</summary>
    private sealed record Crowd(string Name, Peer[] Peers, int Entries)
    {
        public int Total => Peers.Length * Entries;

        public string Text => string.Create(CultureInfo.InvariantCulture, $"{Peers.Length} peer{(Peers.Length == 1 ? "" : "s")} × {Entries:N0}");
    }

    private sealed record Setting(EtcdServer[] Etcds, EtcdKVStore[] Stores, Crowd One, Crowd Large, Crowd All, int Rate, int Seconds, int Rounds)
    {
        /// <summary>The latest identities begin here.</summary>
        public int Identity { get; set; }

        /// <summary>Each with credentials of its own, as different clusters give them: who reads two with the same ones at one address
        /// may take them for one server.</summary>
        public KeyValuePair<string, string>[] Files(Crowd crowd) => [.. crowd.Peers.Select(peer =>
        {
            var options = Etcds[peer.Etcd].Options;
            var certificate = Path.Combine(Etcds[0].WorkDirectory, $"{peer.Cluster.Name}.crt");
            File.Copy(options.CertFile!, certificate, overwrite: true);
            return KeyValuePair.Create(peer.Cluster.Name, ClientFile.Of(options with { CertFile = certificate }));
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
                // On a machine that is busy otherwise, who writes must not give up.
                stores.Add(new EtcdKVStore(etcds[^1].Options with { CallDeadline = TimeSpan.FromMinutes(1) }));
            }
            var all = new Crowd("all", [.. Enumerable.Range(0, peers).Select(number => PeerOf(number, etcds.Count))], entries);
            var large = new Peer(new MockCluster("large", 511, Cached: true, Numbering), 0, 10u << 24 | 128u << 16, 255);
            var setting = new Setting([.. etcds], [.. stores], all with { Name = "one", Peers = all.Peers[..1] },
                new Crowd("large", [large], Math.Min(all.Total, EntriesOfLarge)), all,
                settings.Of("eventrate", 325), settings.Of("eventseconds", 10), settings.Of("rounds", 2));
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
            var direct = await InTurnsAsync(setting, (crowd, _) => DirectAsync(setting, crowd, cancellation));
            Tell(report, setting, "direct", direct[setting.All][0].Agent);
            Tell(report, setting, "agent, direct", direct, result => result.AgentCost);
        }
        var relayed = await InTurnsAsync(setting, (crowd, turn) => RelayedAsync(setting, crowd, turn, cancellation));
        var relay = relayed[setting.All][0].Relay!;
        report.Add($"{setting.All.Text} entries, relay: start → all mirrored",
            string.Create(CultureInfo.InvariantCulture, $"{relay.Time.TotalSeconds:0.0} s ({relay.Cpu.TotalSeconds:0.0} s of CPU)"));
        Memory(report, setting, "relay", relay);
        Tell(report, setting, "through the relay", relayed[setting.All][0].Agent);
        Tell(report, setting, "agent, relayed", relayed, result => result.AgentCost);
        Tell(report, setting, "relay", relayed, result => result.RelayCost!);
    }

    private static async Task<Dictionary<Crowd, List<Result>>> InTurnsAsync(Setting setting, Func<Crowd, int, Task<Result>> run)
    {
        Crowd[] order = [setting.One, setting.Large, setting.All];
        var results = order.ToDictionary(crowd => crowd, _ => new List<Result>());
        for (var turn = 0; turn < setting.Rounds; turn++)
        {
            foreach (var crowd in turn % 2 == 0 ? order : order.Reverse())
                results[crowd].Add(await run(crowd, turn));
        }
        return results;
    }

    private static void Tell(Report report, Setting setting, string way, Sync sync)
    {
        report.Add($"{setting.All.Text} entries, {way}: agent's start → all in the kernel",
            string.Create(CultureInfo.InvariantCulture, $"{sync.Time.TotalSeconds:0.0} s ({sync.Cpu.TotalSeconds:0.0} s of CPU)"));
        Memory(report, setting, "agent", sync);
    }

    private static void Memory(Report report, Setting setting, string who, Sync sync) =>
        report.Add($"  memory of the {who} then, {Settling.TotalSeconds:0} s later, and its peak",
            string.Create(CultureInfo.InvariantCulture,
                $"{sync.Rss / 1e6:0} MB, {sync.Settled / 1e6:0} MB ({(double)sync.Settled / setting.All.Total:0} B/entry), {sync.Peak / 1e6:0} MB"));

    private static void Tell(Report report, Setting setting, string who, Dictionary<Crowd, List<Result>> results, Func<Result, Cost> costOf)
    {
        var culture = CultureInfo.InvariantCulture;
        var (one, large, all) = (Mean(setting.One), Mean(setting.Large), Mean(setting.All));
        Row(setting.One, one, isAim: false);
        Row(setting.Large, large, isAim: true);
        report.Add("    without what happens at rest, next to one large peer", Micro(all.WithoutIdle), Micro(large.WithoutIdle),
            all.WithoutIdle / large.WithoutIdle);
        report.Add("    of a processor while nothing happens", Share(all), $"{Share(one)}; large: {Share(large)}");
        if (all.Together > 0)
        {
            report.Add("    events to a write of the relay's journal", string.Create(culture, $"{all.Together:0.00}"),
                string.Create(culture, $"{one.Together:0.00}; large: {large.Together:0.00}"));
        }
        foreach (var (crowd, runs) in results)
            report.Add($"    each run at {crowd.Text}", string.Join(", ", runs.Select(run => Micro(costOf(run).PerEvent))));

        Cost Mean(Crowd crowd) => new(
            TimeSpan.FromTicks((long)results[crowd].Average(run => costOf(run).PerEvent.Ticks)),
            results[crowd].Average(run => costOf(run).Idle), results[crowd].Average(run => costOf(run).EventsPerSecond),
            results[crowd].Average(run => costOf(run).Together));

        void Row(Crowd few, Cost cost, bool isAim)
        {
            var ratio = all.PerEvent / cost.PerEvent;
            report.Add(string.Create(culture, $"  CPU of the {who} per event at {setting.All.Text}, {setting.Rate} events/s in all"),
                Micro(all.PerEvent), $"at {few.Text}: {Micro(cost.PerEvent)}", ratio,
                string.Create(culture, $"≤ {AimRatio} × at 1 peer"), ratio <= AimRatio);
        }

        string Micro(TimeSpan time) => string.Create(culture, $"{time.TotalMicroseconds:0} µs");
        string Share(Cost cost) => string.Create(culture, $"{100 * cost.Idle:0.0} %");
    }

    private static Task<Result> DirectAsync(Setting setting, Crowd crowd, CancellationToken cancellation) =>
        AgentAsync(setting, crowd, setting.Files(crowd), null, cancellation);

    private static async Task<Result> RelayedAsync(Setting setting, Crowd crowd, int turn, CancellationToken cancellation)
    {
        var directory = Path.Combine(setting.Etcds[0].WorkDirectory, string.Create(CultureInfo.InvariantCulture, $"relay-{crowd.Name}-{turn}"));
        var clock = Stopwatch.StartNew();
        await using var relay = await RelayProcess.StartAsync(
            setting.Etcds[0], Directory.CreateDirectory(directory).FullName, setting.Files(crowd), Numbering.MaxConnectedClusters, cancellation);
        await using var store = new EtcdKVStore(relay.Options);
        while (await store.CountAsync("cilium/cache/ip/v1/", cancellation) < crowd.Total)
        {
            if (clock.Elapsed > Patience)
                throw new TimeoutException($"the relay has not mirrored everything after {Patience}:\n{relay.LogTail}");
            await Task.Delay(20, cancellation);
        }
        var (time, rss, cpu) = (clock.Elapsed, relay.Memory("VmRSS"), relay.Cpu);
        await Task.Delay(Settling, cancellation);
        var sync = new Sync(time, rss, relay.Memory("VmRSS"), relay.Memory("VmHWM"), cpu);
        var file = ClientFile.Of(relay.Options);
        var files = setting.Files(crowd).Select(pair => KeyValuePair.Create(pair.Key, file)).ToArray();
        return await AgentAsync(setting, crowd, files, relay, cancellation) with { Relay = sync };
    }

    private static async Task<Result> AgentAsync(
        Setting setting, Crowd crowd, KeyValuePair<string, string>[] files, RelayProcess? relay, CancellationToken cancellation)
    {
        using var node = new Node();
        var clock = Stopwatch.StartNew();
        await using var agent = AgentProcess.Start(node, files, Numbering,
            ipcacheMax: Math.Max(DatapathOptions.IPCacheMapMaxDefault, (uint)(setting.All.Total * 5L / 4)));
        await SyncedAsync(crowd, agent, cancellation);
        var (time, rss, cpu) = (clock.Elapsed, agent.Memory("VmRSS"), agent.Cpu);
        await Task.Delay(Settling, cancellation);
        var sync = new Sync(time, rss, agent.Memory("VmRSS"), agent.Memory("VmHWM"), cpu);
        // The first ones run code that has not run before.
        await EventsAsync(setting, crowd, agent, setting.Rate, cancellation);
        var idle = await MeasureAsync(agent, relay, () => Task.Delay(TimeSpan.FromSeconds(setting.Seconds), cancellation));
        var events = setting.Rate * setting.Seconds;
        var before = relay?.Writes ?? 0;
        var busy = await MeasureAsync(agent, relay, () => EventsAsync(setting, crowd, agent, events, cancellation));
        var rate = events / busy.Time.TotalSeconds;
        return new Result(sync, new Cost(busy.Agent / events, idle.Agent / idle.Time, rate, 0), null,
            relay is null ? null : new Cost(busy.Relay / events, idle.Relay / idle.Time, rate, (double)events / Math.Max(1, relay.Writes - before)));
    }

    private static async Task<(TimeSpan Agent, TimeSpan Relay, TimeSpan Time)> MeasureAsync(AgentProcess agent, RelayProcess? relay, Func<Task> work)
    {
        var (ofAgent, ofRelay) = (agent.Cpu, relay?.Cpu ?? TimeSpan.Zero);
        var clock = Stopwatch.StartNew();
        await work();
        return (agent.Cpu - ofAgent, (relay?.Cpu ?? TimeSpan.Zero) - ofRelay, clock.Elapsed);
    }

    /// <summary>Every entry is looked up, each until it is there.</summary>
    private static async Task SyncedAsync(Crowd crowd, AgentProcess agent, CancellationToken cancellation)
    {
        var (peer, entry) = (0, 0);
        await agent.UntilAsync(() =>
        {
            for (; peer < crowd.Peers.Length; peer++, entry = 0)
            {
                for (; entry < crowd.Entries; entry++)
                {
                    if (agent.IdentityOf(crowd.Peers[peer].Address(entry)) == 0)
                        return false;
                }
            }
            return true;
        }, $"the entries of {crowd.Text} in the kernel", cancellation, Patience, everyMilliseconds: 10);
    }

    /// <summary>Single puts at a steady pace, one peer after the other; returns when the kernel has the last of each.</summary>
    private static async Task EventsAsync(Setting setting, Crowd crowd, AgentProcess agent, int events, CancellationToken cancellation)
    {
        setting.Identity += IdentitiesPerRun;
        var began = Stopwatch.GetTimestamp();
        var puts = new List<Task>();
        for (var i = 0; i < events; i++)
        {
            var wait = Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), began + (i * Stopwatch.Frequency / setting.Rate));
            if (wait > TimeSpan.Zero)
                await Task.Delay(wait, cancellation);
            puts.Add(setting.Stores[PeerAt(i).Etcd].WriteAsync([PeerAt(i).Entry(EntryAt(i), IdentityAt(i))], cancellation));
        }
        await Task.WhenAll(puts);
        var lasts = Math.Min(events, crowd.Peers.Length);
        var last = Enumerable.Range(events - lasts, lasts).ToList();
        await agent.UntilAsync(() => last.TrueForAll(i =>
                agent.IdentityOf(PeerAt(i).Address(EntryAt(i))) == PeerAt(i).Cluster.Identity(IdentityAt(i))),
            "the last events in the kernel", cancellation, everyMilliseconds: 20);

        Peer PeerAt(int number) => crowd.Peers[number % crowd.Peers.Length];
        // From all over the tables: what is changed next was never near what was changed last.
        int EntryAt(int number) => (int)(number / crowd.Peers.Length * 7919L % crowd.Entries);
        // Each event changes something, also when entries come round again.
        int IdentityAt(int number) => setting.Identity + (number / crowd.Peers.Length / crowd.Entries);
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
            foreach (var crowd in (Crowd[])[setting.All, setting.Large])
            {
                foreach (var peers in crowd.Peers.Where(peer => peer.Etcd == number).Chunk(Math.Max(1, KeysPerWrite / crowd.Entries)))
                    await store.WriteAsync([.. peers.SelectMany(peer => Content(peer, crowd.Entries))], cancellation);
            }
        }, cancellation)));
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"bench: {setting.All.Total + setting.Large.Total:N0} entries written in {clock.Elapsed.TotalSeconds:0} s"));
    }

    private static IEnumerable<WriteOperation> Content(Peer peer, int entries) =>
        peer.Cluster.Announcement().Concat(Enumerable.Range(0, entries).Select(entry => peer.Entry(entry, 0)));

    private static Peer PeerOf(int number, int etcds) => new(
        new MockCluster(string.Create(CultureInfo.InvariantCulture, $"c{number + 2:d3}"), (uint)number + 2, Cached: true, Numbering),
        number % etcds, (10u << 24 | 64u << 16) + ((uint)number * AddressesPerPeer), number);
}
