using System.Collections.Concurrent;
using Mesh.ClusterMesh.Remote;

namespace Mesh.Agent;

/// <summary>Passes everything on, and says in one line when a peer's state changes.</summary>
internal sealed class LoggingSink : IRemoteClusterSink
{
    private readonly IRemoteClusterSink _next;
    private readonly Action<string> _log;
    private readonly ConcurrentDictionary<string, (bool Ready, bool Connected, string Text)> _said = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, bool> _holding = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, (string? Expiry, string? Problem)> _certificates = new(StringComparer.Ordinal);

    private readonly ConcurrentDictionary<string, string?> _imports = new(StringComparer.Ordinal);

    public LoggingSink(IRemoteClusterSink next, Action<string> log)
    {
        _next = next;
        _log = log;
    }

    public void Apply(RemoteChanges changes) => _next.Apply(changes);

    public void Drain(string cluster, uint clusterId)
    {
        _next.Drain(cluster, clusterId);
        _said.TryRemove(cluster, out _);
        _holding.TryRemove(cluster, out _);
        _certificates.TryRemove(cluster, out _);
        _imports.TryRemove(cluster, out _);
        _log($"cluster {cluster}: drained, nothing of it is left");
    }

    public void StatusChanged(RemoteClusterStatus status)
    {
        _next.StatusChanged(status);
        if (_holding.GetValueOrDefault(status.Name) != status.Held > 0)
        {
            _holding[status.Name] = status.Held > 0;
            _log(status.Held > 0 ? $"cluster {status.Name}: {status.HeldText}" : $"cluster {status.Name}: nothing is held any more");
        }
        SayCertificates(status);
        SayImports(status);
        // A healthy line carries counters that change all the time; a sick one says what is wrong, each time anew.
        var now = (status.Ready, status.Connected, status.Connected ? "" : status.Status);
        if (_said.TryGetValue(status.Name, out var before) && before == now)
            return;
        _said[status.Name] = now;
        _log($"cluster {status.Name}: {(status.Ready ? "ready" : status.Connected ? "connected" : "not connected")}: {status.Status}");
    }

    private void SayImports(RemoteClusterStatus status)
    {
        var before = _imports.GetValueOrDefault(status.Name);
        if (before == status.ImportsProblem)
            return;
        _imports[status.Name] = status.ImportsProblem;
        _log($"cluster {status.Name}: {(status.ImportsProblem is { } problem ? $"error: {problem}" : "the import file is in force")}");
    }

    private void SayCertificates(RemoteClusterStatus status)
    {
        var now = (status.CertificateExpiry, status.Tls?.Problem);
        var before = _certificates.GetValueOrDefault(status.Name);
        if (before == now)
            return;
        _certificates[status.Name] = now;
        if (before.Expiry != now.CertificateExpiry)
            _log($"cluster {status.Name}: {now.CertificateExpiry ?? "no certificate expires soon"}");
        if (before.Problem != now.Problem)
            _log($"cluster {status.Name}: {(now.Problem is { } problem ? $"error: {problem}" : "the certificate files are in order again")}");
    }
}
