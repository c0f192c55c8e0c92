using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using Mesh.Joining.Files;
using Mesh.Joining.Tokens;

namespace Mesh.Joining.Listening;

/// <summary>
/// The port where other clusters join. It is open only while a token is usable: the ledger is looked at whenever it changes, and the port
/// closed when the last token is used up or expired. TLS with the cluster's server certificate, read anew for each connection; no client
/// certificate: the token's secret proves the caller. A connection that misbehaves ends alone.
/// </summary>
public sealed class JoinListener : IAsyncDisposable
{
    /// <summary>Written beside the ledger while the port is open, so that a command can tell that a token can be taken.</summary>
    public const string StateFileName = "listener.json";

    /// <summary>Locked while the port is open: a file that a killed server left behind does not count.</summary>
    private const string LockFileName = "listener.lock";

    private const int ConnectionsMax = 64;
    private const int RequestsPerConnection = 32;
    private static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan BlindLookInterval = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan HandshakeTimeout = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan RequestTimeout = TimeSpan.FromSeconds(15);

    private readonly JoinListenerOptions _options;
    private readonly TokenLedger _ledger;
    private readonly JoinRequests _requests;
    private readonly CancellationTokenSource _stop = new();
    private readonly SemaphoreSlim _wake = new(0, 1);
    private readonly SemaphoreSlim _slots = new(ConnectionsMax, ConnectionsMax);
    private readonly HashSet<Task> _connections = [];
    private Task _loop = Task.CompletedTask;
    private FileSystemWatcher? _watcher;
    private FileStream? _alive;
    private volatile string? _problem;
    private volatile bool _open;
    private int _disposed;

    private JoinListener(JoinListenerOptions options)
    {
        _options = options;
        _ledger = new TokenLedger(options.JoinDirectory, options.Time);
        _requests = new JoinRequests(options, _ledger, Counters);
    }

    public JoinCounters Counters { get; } = new();

    public bool IsOpen => _open;

    /// <summary>Why the port cannot be opened, or the ledger not be read; null when all is well.</summary>
    public string? Problem => _problem;

    private string StateFile => Path.Combine(_options.JoinDirectory, StateFileName);

    /// <summary>Begins to watch the ledger. An interrupted join of an earlier run is completed first.</summary>
    /// <exception cref="IOException">The directory cannot be made.</exception>
    public static JoinListener Start(JoinListenerOptions options)
    {
        DurableFile.MakePrivateDirectory(options.JoinDirectory);
        var listener = new JoinListener(options);
        try
        {
            listener._requests.Recover();
        }
        catch (Exception e) when (e is JoinException or IOException or UnauthorizedAccessException)
        {
            // The cluster itself runs on; the taker's rerun tries again.
            options.Log($"join listener: an interrupted join could not be completed: {e.Message}");
        }
        listener._watcher = listener.Watch();
        listener._loop = Task.Run(listener.RunAsync);
        return listener;
    }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        await _stop.CancelAsync();
        await _loop.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _watcher?.Dispose();
        await _requests.DisposeAsync();
        _stop.Dispose();
        _wake.Dispose();
        _slots.Dispose();
    }

    /// <summary>Whether somebody listens with this join directory.</summary>
    internal static bool IsOpenAt(string joinDirectory)
    {
        var path = Path.Combine(joinDirectory, LockFileName);
        if (!File.Exists(Path.Combine(joinDirectory, StateFileName)) || !File.Exists(path))
            return false;
        try
        {
            using var free = new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }

    private FileSystemWatcher? Watch()
    {
        FileSystemWatcher watcher;
        try
        {
            watcher = new FileSystemWatcher(_options.JoinDirectory, TokenLedger.FileName) { EnableRaisingEvents = true };
        }
        catch (Exception e) when (e is IOException or ArgumentException)
        {
            // Out of inotify instances: looking more often does as well.
            _options.Log($"join listener: changes of {_options.JoinDirectory} are noticed by looking only: {e.Message}");
            return null;
        }
        watcher.Changed += (_, _) => Wake();
        watcher.Created += (_, _) => Wake();
        watcher.Renamed += (_, _) => Wake();
        watcher.Deleted += (_, _) => Wake();
        Wake();
        return watcher;
    }

    private void Wake()
    {
        try
        {
            _wake.Release();
        }
        catch (Exception e) when (e is SemaphoreFullException or ObjectDisposedException)
        {
            // A look is due already, or nobody looks any more.
        }
    }

    private async Task RunAsync()
    {
        Socket? socket = null;
        var accepting = Task.CompletedTask;
        try
        {
            while (!_stop.IsCancellationRequested)
            {
                var wanted = IsWanted();
                if (wanted && socket is null && (socket = Open()) is { } opened)
                    accepting = AcceptAsync(opened);
                else if (!wanted && socket is not null)
                {
                    var closing = socket;
                    socket = null;
                    Close(closing);
                    await accepting;
                    _options.Log($"join listener {_options.Address}: closed, no token is usable any more");
                }
                await ((Task)_wake.WaitAsync(_watcher is null ? BlindLookInterval : LookInterval, _stop.Token))
                    .ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
        finally
        {
            if (socket is not null)
                Close(socket);
            await accepting;
            Task[] left;
            lock (_connections)
                left = [.. _connections];
            await Task.WhenAll(left);
        }
    }

    private bool IsWanted()
    {
        try
        {
            var now = _options.Time.GetUtcNow();
            var wanted = _ledger.Read().Tokens.Any(record => record.IsUsable(now));
            if (!wanted)
                Told(null);
            return wanted;
        }
        catch (JoinException e)
        {
            Told(e.Message);
            return false;
        }
    }

    private Socket? Open()
    {
        var socket = _options.OpenSocket(_options.Address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            socket.Bind(_options.Address);
            socket.Listen(ConnectionsMax);
            _alive = new FileStream(Path.Combine(_options.JoinDirectory, LockFileName), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            DurableFile.Replace(StateFile, JsonSerializer.SerializeToUtf8Bytes(
                new ListenerState($"{socket.LocalEndPoint}", _options.Time.GetUtcNow()), JoinJson.Default.ListenerState), DurableFile.Everyone);
            Told(null);
            _open = true;
            _options.Log($"join listener {socket.LocalEndPoint}: open, a token is usable");
            return socket;
        }
        catch (Exception e) when (e is SocketException or IOException or UnauthorizedAccessException)
        {
            socket.Dispose();
            _alive?.Dispose();
            _alive = null;
            Told($"join listener {_options.Address} cannot be opened: {InWords.Of(e)}");
            return null;
        }
    }

    private void Close(Socket socket)
    {
        _open = false;
        socket.Dispose();
        _alive?.Dispose();
        _alive = null;
        try
        {
            File.Delete(StateFile);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It does not count without its lock.
            Told($"{StateFile}: {e.Message}");
        }
    }

    private void Told(string? problem)
    {
        if (problem is not null && problem != _problem)
            _options.Log(problem);
        _problem = problem;
    }

    private async Task AcceptAsync(Socket socket)
    {
        while (true)
        {
            Socket accepted;
            try
            {
                accepted = await socket.AcceptAsync(_stop.Token);
            }
            catch (Exception e) when (e is ObjectDisposedException or OperationCanceledException)
            {
                return;
            }
            catch (SocketException e)
            {
                // Closed by us; or the caller went away, or there are no descriptors: the next one may do better.
                if (e.SocketErrorCode is SocketError.OperationAborted or SocketError.InvalidArgument or SocketError.NotSocket || !_open)
                    return;
                await Task.Delay(TimeSpan.FromMilliseconds(50), CancellationToken.None);
                continue;
            }
            Counters.Connection();
            if (!_slots.Wait(0, CancellationToken.None))
            {
                Counters.Refusal("busy");
                accepted.Dispose();
                continue;
            }
            var connection = Task.Run(() => ServeAsync(accepted));
            lock (_connections)
                _connections.Add(connection);
            _ = connection.ContinueWith(done =>
            {
                lock (_connections)
                    _connections.Remove(done);
            }, TaskScheduler.Default);
        }
    }

    private async Task ServeAsync(Socket socket)
    {
        try
        {
            socket.NoDelay = true;
            await using var stream = new NetworkStream(socket, ownsSocket: true);
            await using var tls = new SslStream(stream);
            if (!await HandshakeAsync(tls))
                return;
            var remote = ((IPEndPoint)socket.RemoteEndPoint!).Address;
            var local = ((IPEndPoint)socket.LocalEndPoint!).Address;
            for (var count = 0; count < RequestsPerConnection; count++)
            {
                if (!await _requests.ServeOneAsync(tls, remote, local, RequestTimeout, _stop.Token))
                    return;
            }
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // The caller went away.
            Counters.Refusal("broken-connection");
        }
        catch (Exception e)
        {
            Counters.Refusal("failure");
            _options.Log($"join listener: a connection ended by {e.GetType().Name}: {e.Message}");
        }
        finally
        {
            _slots.Release();
        }
    }

    private async Task<bool> HandshakeAsync(SslStream tls)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token);
        patience.CancelAfter(HandshakeTimeout);
        try
        {
            var pki = _options.PkiDirectory ?? ClusterDescription.Load(_ledger.Read().ClusterDirectory!).Pki;
            using var certificate = OwnPki.Pair(pki, "server");
            await tls.AuthenticateAsServerAsync(new SslServerAuthenticationOptions
            {
                ServerCertificateContext = SslStreamCertificateContext.Create(certificate, OwnPki.Chain(pki, "server"), offline: true),
                EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
            }, patience.Token);
            return true;
        }
        catch (JoinException e)
        {
            Told(e.Message);
        }
        catch (OperationCanceledException) when (!_stop.IsCancellationRequested)
        {
            // The client may be done already, and sees the connection end.
            Told($"a handshake was not done in {HandshakeTimeout.TotalSeconds} s");
        }
        catch (Exception e) when (e is AuthenticationException or IOException or OperationCanceledException or CryptographicException)
        {
            // Somebody who speaks no TLS, or does not trust us: the client is told by its own side.
        }
        Counters.HandshakeFailure();
        return false;
    }
}

/// <summary>What a listener is made of.</summary>
public sealed record JoinListenerOptions
{
    public required IPEndPoint Address { get; init; }

    public required string JoinDirectory { get; init; }

    /// <summary>Instead of the directory that cluster.json names; null for that one.</summary>
    public string? PkiDirectory { get; init; }

    public TimeProvider Time { get; init; } = TimeProvider.System;

    public Action<string> Log { get; init; } = _ => { };

    /// <summary>Where sockets come from: another network namespace than that of the process, for instance.</summary>
    public OpenSocket OpenSocket { get; init; } = Sockets.Open;

    /// <summary>Called before each step that changes something; a test may throw here as kill -9 would.</summary>
    internal Action<string> Step { get; init; } = _ => { };
}

/// <summary>Makes a socket of a family, type and protocol.</summary>
public delegate Socket OpenSocket(AddressFamily family, SocketType type, ProtocolType protocol);

public static class Sockets
{
    public static Socket Open(AddressFamily family, SocketType type, ProtocolType protocol) => new(family, type, protocol);
}

internal sealed record ListenerState(string Address, DateTimeOffset Since);
