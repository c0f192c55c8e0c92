using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Mesh.Joining.Listening;
using Mesh.Joining.Tokens;
using Mesh.Lab.Native;
using Mesh.Pki;

namespace Mesh.Joining.Tests;

/// <summary>A cluster as directories: its own authority, its configuration directories, a TLS door that answers, and on demand its join
/// listener. Each has an address of its own on loopback, so that the port of the tunnel can be heard on both sides.</summary>
internal sealed class TestCluster : IAsyncDisposable
{
    private static int _next;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<IAsyncDisposable> _owned = [];
    private Task _door = Task.CompletedTask;
    private Socket? _doorSocket;

    private readonly string? _namespace;

    private TestCluster(string root, ClusterDescription description, IPAddress address, string? ns)
    {
        Root = root;
        Description = description;
        Address = address;
        _namespace = ns;
    }

    public string Root { get; }

    public ClusterDescription Description { get; private set; }

    public IPAddress Address { get; }

    public List<string> Log { get; } = [];

    /// <summary>What its listeners said and refused, for a failed test.</summary>
    public string Said
    {
        get
        {
            lock (Log)
                return string.Join('\n', Log.Concat(_owned.OfType<JoinListener>().Select(listener => listener.Counters.Page(""))));
        }
    }

    public static TestCluster Create(string name, uint id, Func<ClusterDescription, ClusterDescription>? change = null,
        TimeProvider? time = null, string? ns = null, IPAddress? at = null)
    {
        var number = Interlocked.Increment(ref _next);
        var address = at ?? IPAddress.Parse($"127.7.{Environment.ProcessId % 200 + 1}.{number % 250 + 1}");
        // In memory where there is such a place: every step of a join is synced to disk.
        var root = Path.Combine(Directory.Exists("/dev/shm") ? "/dev/shm" : Path.GetTempPath(), $"mesh-joining-{Environment.ProcessId}-{name}-{number}");
        foreach (var directory in new[] { "", "agent", "relay", "etcd-config" })
            Directory.CreateDirectory($"{root}/{directory}");
        var settings = new PkiSettings { Cluster = name, ServerNames = [$"{address}"] };
        PkiDirectory.Init($"{root}/pki", settings, time: time);
        File.WriteAllText($"{root}/etcd-config/users.yaml", "# who may read here\nusers: []\n");
        var description = new ClusterDescription
        {
            Name = name,
            Id = id,
            PodCIDRs = [$"10.{id}.0.0/16", $"fd00:10:{id}::/48"],
            NodeCIDRs = [$"172.30.{id}.0/24"],
            DoorAddresses = [$"https://{address}:{(ns is null ? FreePort(address) : 2379)}"],
            JoinListen = $"{address}:{(ns is null ? FreePort(address) : 4443)}",
            Pki = "pki",
            AgentConfigs = ["agent"],
            RelayConfig = "relay",
            UsersFile = "etcd-config/users.yaml",
            JoinDirectory = "join",
            TunnelPort = 18472,
        };
        description = change?.Invoke(description) ?? description;
        description.Save(root);
        var cluster = new TestCluster(root, ClusterDescription.Load(root), address, ns);
        cluster.OpenDoor();
        return cluster;
    }

    public JoinListener Listen(TimeProvider? time = null, Action<string>? step = null)
    {
        var listener = JoinListener.Start(new JoinListenerOptions
        {
            Address = IPEndPoint.Parse(Description.JoinListen!),
            JoinDirectory = Description.JoinDirectory,
            Time = time ?? TimeProvider.System,
            Log = line =>
            {
                lock (Log)
                    Log.Add(line);
            },
            Step = step ?? (_ => { }),
            OpenSocket = OpenSocket,
        });
        _owned.Add(listener);
        return listener;
    }

    public JoinToken Token(TokenRequest? request = null, TimeProvider? time = null) =>
        new TokenLedger(Description.JoinDirectory, time ?? TimeProvider.System)
            .Create(Description, Root, request ?? new TokenRequest(TimeSpan.FromMinutes(10)));

    /// <summary>As if it were another host: sockets come from this cluster's own address.</summary>
    public JoinEnvironment Environment_(Action<string>? step = null, TimeProvider? time = null) => new()
    {
        OpenSocket = (family, type, protocol) =>
        {
            var socket = OpenSocket(family, type, protocol);
            if (type == SocketType.Stream)
                socket.Bind(new IPEndPoint(Address, 0));
            return socket;
        },
        Step = step ?? (_ => { }),
        Time = time ?? TimeProvider.System,
    };

    public TokenJoin Join(JoinToken token, Action<string>? step = null, TimeProvider? time = null) =>
        new(ClusterDescription.Load(Root), token, Environment_(step, time));

    public void Change(Func<ClusterDescription, ClusterDescription> change)
    {
        change(Description).Save(Root);
        Description = ClusterDescription.Load(Root);
    }

    /// <summary>Every file that readers act upon, with content and mode; not the join directory, whose business journals are.</summary>
    public string Checksum()
    {
        var text = new StringBuilder();
        foreach (var file in new[] { "agent", "relay", "etcd-config", "extra" }.Select(d => $"{Root}/{d}").Where(Directory.Exists)
            .SelectMany(d => Directory.EnumerateFileSystemEntries(d, "*", SearchOption.AllDirectories).Append(d)).Order(StringComparer.Ordinal))
            text.AppendLine($"{file} {Convert.ToString((int)File.GetUnixFileMode(file), 8)} "
                + (Directory.Exists(file) ? "" : Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(file)))));
        return text.ToString();
    }

    public string Read(string path) => File.ReadAllText($"{Root}/{path}");

    public bool Has(string path) => File.Exists($"{Root}/{path}");

    public void CloseDoor() => _doorSocket!.Dispose();

    private Socket OpenSocket(AddressFamily family, SocketType type, ProtocolType protocol) =>
        _namespace is null ? new Socket(family, type, protocol) : NetworkNamespace.OpenSocket(_namespace, family, type, protocol);

    private void OpenDoor()
    {
        var uri = new Uri(Description.DoorAddresses[0]);
        if (!IPAddress.TryParse(uri.Host, out var host) || !host.Equals(Address))
            return;
        _doorSocket = OpenSocket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        _doorSocket.Bind(new IPEndPoint(host, uri.Port));
        _doorSocket.Listen();
        _door = Task.Run(DoorAsync);
    }

    private async Task DoorAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                using var socket = await _doorSocket!.AcceptAsync(_stop.Token);
                using var certificate = OwnPki.Pair(Description.Pki, "server");
                await using var tls = new SslStream(new NetworkStream(socket));
                await tls.AuthenticateAsServerAsync(new SslServerAuthenticationOptions { ServerCertificate = certificate }, _stop.Token);
            }
            catch (Exception e) when (e is IOException or System.Security.Authentication.AuthenticationException)
            {
                // A trial ends as it likes.
            }
            catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException or InvalidOperationException)
            {
                return;
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var owned in _owned)
            await owned.DisposeAsync();
        await _stop.CancelAsync();
        _doorSocket?.Dispose();
        await _door;
        _stop.Dispose();
        Directory.Delete(Root, recursive: true);
    }

    private static int FreePort(IPAddress address)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(address, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }
}
