using System.Diagnostics;
using System.Globalization;
using System.Text;
using Mesh.KVStore;
using Mesh.Pki;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Certificates and authorities are replaced under doors and readers that go on.</summary>
public sealed class RotationTests : IAsyncLifetime
{
    private static readonly TimeSpan Life = TimeSpan.FromDays(1);
    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-rotation-").FullName;
    private readonly List<EtcdServer> _etcds = [];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        foreach (var etcd in _etcds)
            await etcd.DisposeAsync();
        Directory.Delete(_directory, recursive: true);
    }

    private async Task<EtcdServer> EtcdAsync()
    {
        var etcd = await EtcdServer.StartAsync();
        _etcds.Add(etcd);
        return etcd;
    }

    /// <summary>The door's files are those of a pki directory, as the API server is given them.</summary>
    private static Task<DoorUnderTest> OpenAsync(EtcdServer etcd, PkiDirectory pki) => DoorUnderTest.OpenAsync(etcd, options => options with
    {
        CertFile = pki.CertFile(PkiLeaf.Server),
        KeyFile = pki.KeyFile(PkiLeaf.Server),
        TrustedCaFile = pki.CaFile,
    });

    private PkiDirectory Pki(string cluster, TimeSpan? life = null) => PkiDirectory.Init(Path.Combine(_directory, cluster),
        new PkiSettings { Cluster = cluster, LeafLifetime = life ?? Life, AuthorityLifetime = TimeSpan.FromDays(30) });

    private static EtcdOptions Reader(int port, string directory, string prefix) => new()
    {
        Endpoints = [$"https://127.0.0.1:{port}"],
        TrustedCaFile = ClientFiles.CaFile(directory, prefix),
        CertFile = ClientFiles.CertFile(directory, prefix),
        KeyFile = ClientFiles.KeyFile(directory, prefix),
        CertificateCheckInterval = TimeSpan.Zero,
    };

    /// <summary>A writer that counts up in a key, and a reader that notes when it last saw what.</summary>
    private sealed class Pulse : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly Task _writing;
        private readonly Task _reading;
        private long _written;
        private long _seen;
        private long _at = Stopwatch.GetTimestamp();
        private long _widest;

        public Pulse(IKVStore etcd, IKVStore reader, string key, TimeSpan every)
        {
            _writing = WriteAsync(etcd, key, every);
            _reading = ReadAsync(reader, key);
        }

        public long Seen => Interlocked.Read(ref _seen);

        /// <summary>The longest time without an event since the first, the time until now included.</summary>
        public TimeSpan WidestGap => TimeSpan.FromTicks(Math.Max(Interlocked.Read(ref _widest),
            Stopwatch.GetElapsedTime(Interlocked.Read(ref _at)).Ticks));

        public int Lists { get; private set; }

        public async Task CatchUpAsync() =>
            await Wait.UntilAsync(() => Seen >= Interlocked.Read(ref _written), $"the reader at {Seen} of {Interlocked.Read(ref _written)}");

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _writing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await _reading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _stop.Dispose();
        }

        private async Task WriteAsync(IKVStore etcd, string key, TimeSpan every)
        {
            while (true)
            {
                var next = Interlocked.Read(ref _written) + 1;
                await etcd.WriteAsync([new WriteOperation(key, Encoding.UTF8.GetBytes(next.ToString(CultureInfo.InvariantCulture)))], _stop.Token);
                Interlocked.Exchange(ref _written, next);
                await Task.Delay(every, _stop.Token);
            }
        }

        private async Task ReadAsync(IKVStore reader, string key)
        {
            await foreach (var batch in reader.ListWatchAsync(key, _stop.Token))
            {
                if (batch.Kind == WatchBatchKind.ListEnd)
                    Lists++;
                if (batch.Kind != WatchBatchKind.Put)
                    continue;
                var number = long.Parse(Encoding.UTF8.GetString(batch.Events[^1].Value.Span), CultureInfo.InvariantCulture);
                var gap = Stopwatch.GetElapsedTime(Interlocked.Exchange(ref _at, Stopwatch.GetTimestamp()));
                if (Seen > 0 && gap.Ticks > Interlocked.Read(ref _widest))
                    Interlocked.Exchange(ref _widest, gap.Ticks);
                Interlocked.Exchange(ref _seen, number);
            }
        }
    }

    /// <summary>A certificate's day is three seconds here. The reader's old certificate ends, and the door cuts it off, several times.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Thirty_rotations_leave_no_gap_and_without_them_the_reader_is_cut_off(bool rotate)
    {
        var day = TimeSpan.FromSeconds(3);
        var etcd = await EtcdAsync();
        var pki = Pki(DoorUnderTest.Cluster, day);
        await using var door = await OpenAsync(etcd, pki);
        pki.CopyClientFiles(PkiLeaf.Remote, _directory, "peer");
        await using var writer = etcd.NewStore();
        await using var store = new EtcdKVStore(Reader(door.Door.Address!.Port, _directory, "peer"));
        await using var pulse = new Pulse(writer, store, "cilium/state/pulse", TimeSpan.FromMilliseconds(20));
        await Wait.UntilAsync(() => pulse.Seen > 0, "the first event");

        for (var step = 0; step < 30; step++)
        {
            pki.Issue(rotate ? [PkiLeaf.Server, PkiLeaf.Remote] : [PkiLeaf.Server]);
            pki.CopyClientFiles(PkiLeaf.Remote, _directory, "peer");
            await Task.Delay(day / 12, Cancellation);
        }

        Assert.Equal(rotate, pulse.WidestGap < TimeSpan.FromSeconds(2.5));
        Assert.Equal(rotate, store.Status.Connected);
        if (!rotate)
            return;
        await pulse.CatchUpAsync();
        Assert.Equal(1, pulse.Lists);
        Assert.True(door.Door.Status.StreamsCut > 0, "no certificate ended during the test");
        Assert.Empty(door.Door.Status.Problems);
        Assert.Null(store.Status.Tls!.Problem);
    }

    [Fact]
    public async Task A_rotation_alone_breaks_no_connection_and_the_next_handshake_shows_it()
    {
        var etcd = await EtcdAsync();
        var pki = Pki(DoorUnderTest.Cluster);
        pki.Issue(PkiLeaf.All, lifetime: TimeSpan.FromHours(1));
        await using var door = await OpenAsync(etcd, pki);
        pki.CopyClientFiles(PkiLeaf.Remote, _directory, "peer");
        await using var writer = etcd.NewStore();
        await using var store = new EtcdKVStore(Reader(door.Door.Address!.Port, _directory, "peer"));
        await using var pulse = new Pulse(writer, store, "cilium/state/pulse", TimeSpan.FromMilliseconds(5));
        await Wait.UntilAsync(() => pulse.Seen > 0, "the first event");
        var before = store.Status.Tls!;

        pki.Rotate();
        pki.Rotate();
        var seen = pulse.Seen;
        await Wait.UntilAsync(() => pulse.Seen > seen + 100 && door.Door.Status.CertificateNotAfter > before.ServerNotAfter, "the door to take it");
        Assert.Equal(0, store.Status.Resumptions);
        Assert.Equal(before.ServerNotAfter, store.Status.Tls!.ServerNotAfter);
        // The peer has not heard of the next authority at all: neither its bundle nor its certificate know it.
        Assert.Single(CertificateFacts.AllOfPem(File.ReadAllText(ClientFiles.CaFile(_directory, "peer"))));
        await using var another = new EtcdKVStore(Reader(door.Door.Address!.Port, _directory, "peer"));
        Assert.NotNull(await another.GetAsync("cilium/state/pulse", Cancellation));
        Assert.Equal(door.Door.Status.CertificateNotAfter, another.Status.Tls!.ServerNotAfter);
        // The step that has to wait for it: both the bundle and the certificate are of the previous authority.
        pki.Rotate();
        await using var late = new EtcdKVStore(Reader(door.Door.Address!.Port, _directory, "peer") with { RetryAttempts = 1 });
        await Assert.ThrowsAsync<KVStoreException>(() => late.GetAsync("cilium/state/pulse", Cancellation));
    }

    [Fact]
    public async Task The_door_warns_of_a_certificate_that_ends_soon_until_there_is_a_new_one()
    {
        var etcd = await EtcdAsync();
        var pki = PkiDirectory.Init(Path.Combine(_directory, "door"), new PkiSettings { Cluster = DoorUnderTest.Cluster });
        pki.Issue([PkiLeaf.Server], lifetime: TimeSpan.FromDays(12.5));
        await using var door = await OpenAsync(etcd, pki);
        await Wait.UntilAsync(() => !door.Log.IsEmpty && door.Log.Any(line => line.Contains("expires in 12 days", StringComparison.Ordinal)), "the warning");
        Assert.Contains("mesh ca issue server", door.Door.Status.CertificateExpiry, StringComparison.Ordinal);
        Assert.InRange(door.Door.Status.AuthorityNotAfter, DateTimeOffset.UtcNow.AddDays(1094), DateTimeOffset.UtcNow.AddDays(1096));
        pki.Issue([PkiLeaf.Server]);
        await Wait.UntilAsync(() => door.Door.Status.CertificateExpiry is null, "the end of the warning");
        await Wait.UntilAsync(() => door.Log.Last().Contains("no certificate expires soon", StringComparison.Ordinal), "the line that ends it");
        Assert.Single(door.Log, line => line.Contains("expires in 12 days", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Clients_below_an_authority_get_in_with_the_chain_that_they_send_and_stay_when_the_bundle_changes()
    {
        var etcd = await EtcdAsync();
        await using var door = await DoorUnderTest.OpenAsync(etcd);
        var (csr, key) = CertificateRequests.Create("between");
        using var between = CertificateAuthority.Load(door.Authority.IssueAuthority(csr, "between", Life), key);
        var client = between.Issue("remote", CertificateNames.None, CertificateUse.Client, Life);
        door.Write("remote", client);
        await using var writer = etcd.NewStore();
        await using var store = new EtcdKVStore(door.As("remote"));
        await using var pulse = new Pulse(writer, store, "cilium/state/pulse", TimeSpan.FromMilliseconds(5));
        await Wait.UntilAsync(() => pulse.Seen > 0, "the first event");
        // etcdctl sends the chain too.
        Assert.Equal(0, (await door.EtcdctlAsync("remote", "get", "cilium/state/pulse")).Exit);

        using var next = CertificateAuthority.Create("next", Life);
        await File.WriteAllTextAsync(door.CaFile, door.Authority.CertificatePem + "\n" + next.CertificatePem, Cancellation);
        await Task.Delay(2500, Cancellation);
        Assert.Equal(0, store.Status.Resumptions);
        Assert.Equal(0, door.Door.Status.StreamsCut);

        var alone = client.CertificatePem[..(client.CertificatePem.IndexOf("-----END", StringComparison.Ordinal) + 26)];
        door.Write("remote", client with { CertificatePem = alone });
        Assert.NotEqual(0, (await door.EtcdctlAsync("remote", "get", "cilium/state/pulse")).Exit);
    }

    /// <summary>Three clusters, each read by both others. Every authority is replaced; who takes which step when is drawn by lot, one
    /// cluster is off the network meanwhile, and connections are broken after every step, so that every mixture meets a handshake.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Authorities_of_three_clusters_are_replaced_in_any_order_and_no_reader_loses_anything(int seed)
    {
        var random = new Random(seed);
        string[] names = ["tokyo", "osaka", "kyoto"];
        var sites = new List<(string Name, PkiDirectory Pki, DoorUnderTest Door, TcpProxy Wire, EtcdKVStore Writer)>();
        foreach (var name in names)
        {
            var etcd = await EtcdAsync();
            var pki = Pki(name);
            var users = Path.Combine(_directory, name + ".users");
            await File.WriteAllTextAsync(users,
                "users:\n" + string.Concat(names.Where(n => n != name).Select(n => $"- name: remote-{n}\n  role: remote\n")), Cancellation);
            var door = await DoorUnderTest.OpenAsync(etcd, options => options with
            {
                ClusterName = name,
                CertFile = pki.CertFile(PkiLeaf.Server),
                KeyFile = pki.KeyFile(PkiLeaf.Server),
                TrustedCaFile = pki.CaFile,
                UsersFile = users,
            });
            sites.Add((name, pki, door, new TcpProxy(door.Door.Address!.Port), etcd.NewStore()));
        }
        var pulses = new List<(string Of, Pulse Pulse, EtcdKVStore Store)>();
        var plans = new List<Queue<Action>>();
        foreach (var (name, pki, _, wire, writer) in sites)
        {
            var joins = new List<Action>();
            foreach (var peer in names.Where(n => n != name))
            {
                var directory = Directory.CreateDirectory(Path.Combine(_directory, "agents-" + peer)).FullName;
                var (csr, key) = CertificateRequests.Create(peer);
                void Join()
                {
                    var (certificate, bundle) = pki.IssueForPeer(csr, $"remote-{peer}");
                    ClientFiles.Write(directory, $"{name}.etcd-client", bundle, certificate, key);
                }
                Join();
                joins.Add(Join);
                var store = new EtcdKVStore(Reader(wire.Port, directory, $"{name}.etcd-client"));
                pulses.Add((name, new Pulse(writer, store, "cilium/state/pulse-for-" + peer, TimeSpan.FromMilliseconds(20)), store));
            }
            // announced, reissued, each peer joins again, settled: the last waits for the joins by itself.
            plans.Add(new Queue<Action>([() => pki.Rotate(), () => pki.Rotate(), joins[0], joins[1], () => pki.Rotate()]));
        }
        foreach (var (_, pulse, _) in pulses)
            await Wait.UntilAsync(() => pulse.Seen > 0, "the first event of every reader");

        var offline = random.Next(sites.Count);
        for (var turn = 0; plans.Exists(plan => plan.Count > 0); turn++)
        {
            var isAway = turn is >= 3 and < 8;
            var open = plans.Where((plan, index) => plan.Count > 0 && !(isAway && index == offline)).ToList();
            open[random.Next(open.Count)].Dequeue()();
            // Every connection is made anew, with the files as they are.
            foreach (var (index, site) in sites.Index())
            {
                site.Wire.Cut();
                if (!(isAway && index == offline))
                    site.Wire.Heal();
            }
            var back = pulses.Where(one => !(isAway && one.Of == names[offline])).Select(one => (one.Pulse, one.Pulse.Seen)).ToList();
            await Wait.UntilAsync(() => back.TrueForAll(one => one.Pulse.Seen > one.Seen + 3), $"all readers to be back after turn {turn}");
        }

        foreach (var (of, pulse, store) in pulses)
        {
            await pulse.CatchUpAsync();
            Assert.Equal(1, pulse.Lists);
            Assert.True(of == names[offline] || pulse.WidestGap < TimeSpan.FromSeconds(3), $"{of}: {pulse.WidestGap}");
            Assert.True(store.Status.Resumptions >= 10, $"{store.Status.Resumptions}");
            Assert.Null(store.Status.Tls!.Problem);
            await pulse.DisposeAsync();
            await store.DisposeAsync();
        }
        foreach (var (_, pki, door, wire, writer) in sites)
        {
            Assert.Equal(RotationStage.Settled, pki.Settings.Stage);
            Assert.Single(CertificateFacts.AllOfPem(pki.TrustedPem));
            await writer.DisposeAsync();
            await wire.DisposeAsync();
            await door.DisposeAsync();
        }
    }
}
