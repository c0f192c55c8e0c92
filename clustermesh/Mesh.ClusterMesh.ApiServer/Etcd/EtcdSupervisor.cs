using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Etcd;

/// <summary>
/// Keeps one etcd child alive: starts it, waits until it serves, starts it again with growing pauses when it dies, and never leaves
/// it behind. The kernel kills the child when the thread that forked it ends (PR_SET_PDEATHSIG), so one thread of our own forks and
/// then waits for as long as the supervisor lives: a parent killed with -9 takes its etcd along. It listens on loopback only, and
/// lets nobody in but this process and whoever may read its directory.
/// </summary>
public sealed partial class EtcdSupervisor : IAsyncDisposable
{
    private static readonly TimeSpan RestartPauseMin = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan RestartPauseMax = TimeSpan.FromSeconds(5);

    /// <summary>A child that lived this long was well: the next pause is the shortest again.</summary>
    private static readonly TimeSpan Settled = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan StopPatience = TimeSpan.FromSeconds(5);

    private readonly string _directory;
    private readonly EtcdCertificates _certificates;
    private readonly Action<string> _log;
    private readonly TimeProvider _time;
    private readonly FileStream _lock;
    private readonly ManualResetEventSlim _stop = new();
    private readonly CancellationTokenSource _stopWatching = new();
    private Task _watching = Task.CompletedTask;
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly HttpClient _http = new() { Timeout = TimeSpan.FromSeconds(1) };
    private readonly Queue<string> _output = new();
    private volatile Process? _child;
    private volatile string? _error = "etcd is starting";
    private volatile int _healthPort;
    private readonly Lock _gate = new();
    private TaskCompletionSource _startedAgain = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _starts;

    private EtcdSupervisor(string directory, FileStream exclusive, TimeProvider time, Action<string> log)
    {
        _directory = directory;
        _certificates = new EtcdCertificates(directory);
        _lock = exclusive;
        _time = time;
        _log = log;
    }

    /// <summary>Process ID of the present child; 0 between two.</summary>
    public int ChildProcessId => _child?.Id ?? 0;

    /// <summary>Times it had to be started again.</summary>
    public int Restarts => Math.Max(0, Volatile.Read(ref _starts) - 1);

    /// <summary>How to reach it, with every right.</summary>
    public EtcdOptions ClientOptions => _certificates.ClientOptions();

    /// <summary>Why it does not serve; null when it does.</summary>
    public string? Error => _error;

    /// <summary>Takes the data directory over and begins to supervise; etcd may not serve yet when this returns.</summary>
    /// <param name="directory">Made with mode 0700 when absent. Its content is a projection of the objects: losing it costs a
    /// rewrite.</param>
    /// <exception cref="IOException">The directory cannot be used, or another API server uses it. The message says which.</exception>
    public static EtcdSupervisor Start(string directory, TimeProvider? time = null, Action<string>? log = null)
    {
        log ??= _ => { };
        directory = Path.GetFullPath(directory);
        const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Directory.CreateDirectory(directory, OwnerOnly);
        File.SetUnixFileMode(directory, OwnerOnly);
        FileStream exclusive;
        try
        {
            exclusive = new FileStream(Path.Combine(directory, "apiserver.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException e)
        {
            throw new IOException($"--etcd-data-dir {directory} is in use by another API server: stop it or give this one another", e);
        }
        // We hold the lock, so an etcd that still works on this directory has lost its parent.
        OrphanedEtcd.End(directory, log);
        var supervisor = new EtcdSupervisor(directory, exclusive, time ?? TimeProvider.System, log);
        new Thread(supervisor.Supervise) { IsBackground = true, Name = "etcd" }.Start();
        supervisor._watching = Task.Run(supervisor.WatchStartsAsync);
        return supervisor;
    }

    /// <summary>Each life of etcd is without error once it serves.</summary>
    private async Task WatchStartsAsync()
    {
        try
        {
            for (var seen = 0; ;)
            {
                seen = await WaitForStartAsync(seen, _stopWatching.Token);
                await WaitUntilReadyAsync(_stopWatching.Token);
                Mark();
            }
        }
        catch (OperationCanceledException) when (_stopWatching.IsCancellationRequested)
        {
            return;
        }
    }

    /// <summary>Notes, within etcd's data, that they have served: an etcd that is killed while it makes them can be left without a
    /// member to elect, and would then wait for ever.</summary>
    private void Mark()
    {
        try
        {
            File.WriteAllText(ServedMark, "");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _log($"etcd: {ServedMark} cannot be written, so the next start begins with empty data: {e.Message}");
        }
    }

    private void RemoveUnserved()
    {
        if (!Directory.Exists(MemberDirectory) || File.Exists(ServedMark))
            return;
        _log("etcd: its data were not finished when it ended: it begins with empty ones");
        Directory.Delete(MemberDirectory, recursive: true);
    }

    private string MemberDirectory => Path.Combine(_directory, "member");

    private string ServedMark => Path.Combine(MemberDirectory, "served");

    /// <summary>Completes once etcd has been started more often than the caller has seen; returns how often.</summary>
    public async Task<int> WaitForStartAsync(int seen, CancellationToken cancellation)
    {
        while (true)
        {
            Task next;
            lock (_gate)
            {
                if (_starts > seen)
                    return _starts;
                next = _startedAgain.Task;
            }
            await next.WaitAsync(cancellation);
        }
    }

    /// <summary>Returns when etcd serves.</summary>
    public async Task WaitUntilReadyAsync(CancellationToken cancellation)
    {
        while (!await AnswersAsync(cancellation))
            await Task.Delay(TimeSpan.FromMilliseconds(10), _time, cancellation);
        _error = null;
    }

    /// <summary>Ends etcd in an orderly way; its data stays.</summary>
    public async ValueTask DisposeAsync()
    {
        _stop.Set();
        await _stopWatching.CancelAsync();
        await _watching;
        if (_child is { } child)
            Kill(child.Id, SigTerm);
        try
        {
            await _ended.Task.WaitAsync(StopPatience, _time);
        }
        catch (TimeoutException)
        {
            if (_child is { } stubborn)
                Kill(stubborn.Id, SigKill);
            await _ended.Task;
        }
        _http.Dispose();
        _stop.Dispose();
        _stopWatching.Dispose();
        await _lock.DisposeAsync();
    }

    private async Task<bool> AnswersAsync(CancellationToken cancellation)
    {
        try
        {
            return _healthPort != 0 && (await _http.GetStringAsync(new Uri($"http://127.0.0.1:{_healthPort}/health"), cancellation))
                .Contains("\"true\"", StringComparison.Ordinal);
        }
        catch (Exception e) when (e is HttpRequestException or TaskCanceledException && !cancellation.IsCancellationRequested)
        {
            return false;
        }
    }

    /// <summary>The supervising thread. It must not end while a child lives.</summary>
    private void Supervise()
    {
        var pause = RestartPauseMin;
        while (!_stop.IsSet)
        {
            var born = _time.GetTimestamp();
            var end = RunOnce();
            if (_stop.IsSet)
                break;
            pause = _time.GetElapsedTime(born) > Settled ? RestartPauseMin : pause;
            _error = end;
            _log($"etcd: {end}; starting it again in {pause.TotalMilliseconds:0} ms");
            _stop.Wait(pause);
            pause = pause * 2 < RestartPauseMax ? pause * 2 : RestartPauseMax;
        }
        _ended.SetResult();
    }

    /// <returns>How it ended, for the log.</returns>
    private string RunOnce()
    {
        try
        {
            RemoveUnserved();
            _certificates.Make();
            using var child = Process.Start(StartInfo())!;
            _child = child;
            CountStart();
            // Asked to stop while it was being started.
            if (_stop.IsSet)
                Kill(child.Id, SigTerm);
            // Reading to the end blocks until every holder of the pipe is gone, that is, until etcd is.
            while (child.StandardError.ReadLine() is { } line)
                Note(line);
            child.WaitForExit();
            _child = null;
            return $"ended with code {child.ExitCode.ToString(CultureInfo.InvariantCulture)}{LastWords()}";
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            _child = null;
            return $"cannot be started ({e.Message}): install etcd and util-linux (setpriv)";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _child = null;
            return $"cannot be started: {e.Message}";
        }
    }

    private void CountStart()
    {
        TaskCompletionSource started;
        lock (_gate)
        {
            _starts++;
            started = _startedAgain;
            _startedAgain = new(TaskCreationOptions.RunContinuationsAsynchronously);
        }
        started.SetResult();
    }

    private void Note(string line)
    {
        lock (_output)
        {
            _output.Enqueue(line);
            if (_output.Count > 20)
                _output.Dequeue();
        }
    }

    private string LastWords()
    {
        lock (_output)
        {
            var last = _output.LastOrDefault(line => line.Contains("\"level\":\"fatal\"", StringComparison.Ordinal)
                || line.Contains("\"level\":\"error\"", StringComparison.Ordinal)) ?? _output.LastOrDefault();
            _output.Clear();
            return last is null ? "" : $": {last}";
        }
    }

    private ProcessStartInfo StartInfo()
    {
        _healthPort = FreePort();
        var peer = $"https://127.0.0.1:{FreePort()}";
        string[] certificates = ["--cert-file", _certificates.ServerCertFile, "--key-file", _certificates.ServerKeyFile,
            "--trusted-ca-file", _certificates.CaFile, "--client-cert-auth"];
        string[] arguments =
        [
            "--pdeathsig", "KILL", "etcd", "--name", "clustermesh", "--data-dir", _directory,
            "--listen-client-urls", _certificates.Url, "--advertise-client-urls", _certificates.Url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", $"clustermesh={peer}",
            .. certificates,
            // It has no peers, but who could speak raft to it could write.
            .. certificates.Select(argument => argument.StartsWith("--", StringComparison.Ordinal) ? $"--peer-{argument[2..]}" : argument),
            // Counts only when the directory is empty: an etcd born anew must have a new cluster ID, or peers would resume their
            // watches at revisions of its former life.
            "--initial-cluster-token", Guid.NewGuid().ToString("N"),
            "--listen-metrics-urls", $"http://127.0.0.1:{_healthPort}",
            // One member has nobody to wait for: it elects itself in 0.1 s.
            "--heartbeat-interval", "10", "--election-timeout", "100",
            "--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h",
            "--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr",
        ];
        return new ProcessStartInfo("setpriv", arguments) { RedirectStandardError = true, WorkingDirectory = _directory };
    }

    private static int FreePort()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return ((IPEndPoint)probe.LocalEndpoint).Port;
    }

    internal const int SigKill = 9;
    internal const int SigTerm = 15;

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    internal static partial int Kill(int pid, int signal);
}
