using System.Globalization;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.Cli.Troubleshooting;

/// <summary>
/// Walks DNS → TCP → TLS → authentication → heartbeat → config → canaries → data of one peer, from its file alone, and stops at the
/// first real cause. The layout up to the etcd client is that of `cilium-dbg troubleshoot clustermesh`; the rest is ours.
/// </summary>
/// <param name="ownId">Cluster ID of this side; null when unknown.</param>
internal sealed class PeerExamination(string cluster, uint? ownId, TimeSpan patience, TimeProvider time)
{
    private static readonly TimeSpan HeartbeatLimit = TimeSpan.FromSeconds(150);
    private static readonly TimeSpan SkewLimit = TimeSpan.FromSeconds(30);

    private readonly Examination _report = new(cluster);

    public async Task<Examination> RunAsync(string path, CancellationToken cancellation)
    {
        _report.Title($"Cluster \"{cluster}\":");
        _report.Plain($"📄 Configuration path: {path}");
        _report.Plain("");
        if (Read(path) is { } options && await EndpointsAsync(options, cancellation) && Certificates(options))
            await StoreAsync(options, cancellation);
        _report.Conclude();
        return _report;
    }

    private EtcdOptions? Read(string path)
    {
        try
        {
            return EtcdConfigFile.Parse(File.ReadAllText(path)) with
            {
                CallDeadline = patience,
                RetryAttempts = 1,
            };
        }
        catch (Exception e) when (e is FormatException or IOException or UnauthorizedAccessException)
        {
            _report.Bad(PeerFault.Settings, e is FileNotFoundException ? "Configuration not found" : $"Cannot read the configuration: {e.Message}", depth: 1);
            return null;
        }
    }

    private async Task<bool> EndpointsAsync(EtcdOptions options, CancellationToken cancellation)
    {
        _report.Plain("🔌 Endpoints:");
        var works = false;
        foreach (var endpoint in options.Endpoints)
            works |= await new EndpointExamination(options, patience, _report, time.GetUtcNow()).RunAsync(endpoint, cancellation);
        if (works)
            _report.Forgive();
        _report.Plain("");
        // The certificates are worth seeing also when it is TLS that failed.
        if (_report.Fault is PeerFault.TlsUnknownAuthority or PeerFault.CertificateExpired or PeerFault.CertificateRefused or PeerFault.ClockSkew)
            Certificates(options);
        return works;
    }

    private bool Certificates(EtcdOptions options)
    {
        if (options.CertFile is null && options.TrustedCaFile is null)
            return true;
        _report.Plain("🔑 Digital certificates:");
        Print("TLS Root CA certificates", options.TrustedCaFile);
        Print("TLS client certificates", options.CertFile);
        _report.Plain("");
        return _report.Fault == PeerFault.None;
    }

    private void Print(string title, string? file)
    {
        if (file is null)
            return;
        var certificates = new X509Certificate2Collection();
        try
        {
            certificates.ImportFromPemFile(file);
        }
        catch (Exception e) when (e is IOException or CryptographicException or UnauthorizedAccessException)
        {
            _report.Bad(PeerFault.CertificateUnusable, $"{title}: {file}: {e.Message}");
            return;
        }
        _report.Good($"{title}:");
        foreach (var certificate in certificates)
        {
            _report.Plain($"      - Serial number:       {Serial(certificate)}");
            _report.Plain($"        Subject:             {certificate.Subject}");
            _report.Plain($"        Issuer:              {certificate.Issuer}");
            _report.Plain("        Validity:");
            _report.Plain($"          Not before:  {EndpointExamination.Time(certificate.NotBefore)}");
            _report.Plain($"          Not after:   {EndpointExamination.Time(certificate.NotAfter)}");
            if (certificate.NotAfter.ToUniversalTime() < time.GetUtcNow().UtcDateTime)
                _report.Bad(PeerFault.CertificateExpired, $"{certificate.Subject} in {file} expired on {EndpointExamination.Time(certificate.NotAfter)}");
        }
    }

    private static string Serial(X509Certificate2 certificate) =>
        string.Join(':', Convert.FromHexString(certificate.SerialNumber).Select(b => b.ToString("x2", CultureInfo.InvariantCulture)));

    private async Task StoreAsync(EtcdOptions options, CancellationToken cancellation)
    {
        _report.Plain("⚙️ Etcd client:");
        await using var store = new EtcdKVStore(options);
        try
        {
            await HeartbeatAsync(store, cancellation);
            if (_report.Fault != PeerFault.None || await ConfigAsync(store, cancellation) is not { } config)
                return;
            _report.Mirrored = config.Capabilities?.Cached == true;
            var layout = config.Capabilities?.Cached == true ? Layout.Cache(cluster) : Layout.State(cluster);
            if (_report.Mirrored)
                await SourceAsync(store, cancellation);
            if (_report.Fault == PeerFault.None && config.Capabilities?.SyncedCanaries == true)
                await CanariesAsync(store, layout, cancellation);
            if (_report.Fault == PeerFault.None)
                await DataAsync(store, layout, cancellation);
        }
        catch (KVStoreException e)
        {
            _report.Bad(PeerFaults.Of(e.Fault), $"Failed to retrieve key from etcd: {e.Message}", e.Message);
        }
    }

    /// <summary>What the relay says of its own reading of the peer.</summary>
    private async Task SourceAsync(EtcdKVStore store, CancellationToken cancellation)
    {
        if (await store.GetAsync(Keys.SourceTrouble(cluster), cancellation) is not { } said)
            return;
        var trouble = SourceTrouble.Decode(said.Value.Span);
        var since = trouble.Since is { } time ? $" since {EndpointExamination.Time(time.UtcDateTime)}" : "";
        _report.Bad(trouble.Fault == PeerFault.Other ? PeerFault.SourceLost : trouble.Fault,
            $"The relay has lost {cluster}{since}: {trouble.Text}", trouble.Text);
    }

    private async Task HeartbeatAsync(EtcdKVStore store, CancellationToken cancellation)
    {
        KeyValue? beat;
        try
        {
            beat = await store.GetAsync(Keys.Heartbeat, cancellation);
        }
        catch (KVStoreException e)
        {
            _report.Bad(PeerFaults.Of(e.Fault), $"Failed to establish connection: {e.Message}", e.Message);
            return;
        }
        _report.Good("Etcd connection successfully established");
        _report.Note($"Etcd cluster ID: {store.Status.ClusterId:x}");
        await SignsAsync(store, cancellation);
        if (store.Status.Alarm is { } alarm)
            _report.Bad(store.Status.Fault == StoreFault.NoSpace ? PeerFault.StoreFull : PeerFault.StoreAlarm, $"The store complains: {alarm}", alarm);
        _report.Plain("");
        _report.Plain("🩺 State of the cluster:");
        if (beat is not { } present)
        {
            _report.Bad(PeerFault.HeartbeatStale, $"{Keys.Heartbeat} is missing: no API server has ever written here");
            return;
        }
        Clock(present, store.Status.ClockSkew);
    }

    /// <summary>A watch of the heartbeat: that we may watch, and what the store says of itself meanwhile.</summary>
    private async Task SignsAsync(EtcdKVStore store, CancellationToken cancellation)
    {
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        enough.CancelAfter(patience);
        try
        {
            await foreach (var batch in store.ListWatchAsync(Keys.Heartbeat, enough.Token))
            {
                if (batch.Kind != WatchBatchKind.ListEnd)
                    continue;
                while (store.Status.ProofProblem is null && store.Status.ProofAge is null)
                    await Task.Delay(20, enough.Token);
                // The complaint comes behind the sign of life.
                await Task.Delay(patience / 10, enough.Token);
                return;
            }
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            _report.Bad(PeerFault.Frozen, "It answers single questions, but no watch");
        }
    }

    private void Clock(KeyValue beat, TimeSpan? skew)
    {
        var text = Encoding.UTF8.GetString(beat.Value.Span);
        if (skew is { } known && known.Duration() > SkewLimit)
            _report.Bad(PeerFault.ClockSkew, $"Its clock is {known.TotalSeconds:0} s off ours");
        else if (!DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var written))
            _report.Warn($"The heartbeat is no time: '{(text.Length > 40 ? text[..40] : text)}'");
        else if (time.GetUtcNow() - written is var age && age < -SkewLimit)
            _report.Bad(PeerFault.ClockSkew, $"Its heartbeat is stamped {-age.TotalSeconds:0} s in the future: one of the clocks is wrong");
        else if (age > HeartbeatLimit)
            _report.Bad(PeerFault.HeartbeatStale, $"The newest heartbeat is {age.TotalSeconds:0} s old: its API server does not write, or its clock is behind");
        else
            _report.Good($"Heartbeat: {Math.Max(0, age.TotalSeconds):0} s old");
    }

    private async Task<ClusterConfig?> ConfigAsync(EtcdKVStore store, CancellationToken cancellation)
    {
        var key = Keys.ClusterConfig(cluster);
        if (await store.GetAsync(key, cancellation) is not { } found)
        {
            _report.Bad(PeerFault.ConfigMissing, $"{key} is missing: no cluster named {cluster} has published itself there");
            return null;
        }
        if (!ClusterConfigCodec.TryDecode(found.Value.Span, out var config, out var rejection))
        {
            _report.Bad(PeerFault.ConfigMalformed, $"{key}: {rejection}");
            return null;
        }
        _report.ClusterId = config.Id;
        if (config.Id is 0 or > 511)
            _report.Bad(PeerFault.WrongClusterId, $"It announces cluster ID {config.Id}; allowed are 1 to 511");
        else if (config.Id == ownId)
            _report.Bad(PeerFault.WrongClusterId, $"It announces cluster ID {config.Id}, which is our own");
        else
            _report.Good($"Configuration: cluster-id={config.Id}, kvstoremesh={(config.Capabilities?.Cached == true ? "true" : "false")}, "
                + $"sync-canaries={(config.Capabilities?.SyncedCanaries == true ? "true" : "false")}");
        return _report.Fault == PeerFault.None ? config : null;
    }

    private async Task CanariesAsync(EtcdKVStore store, Layout layout, CancellationToken cancellation)
    {
        var missing = new List<string>();
        foreach (var resource in RemoteResources.OfEveryCluster)
        {
            if (await store.GetAsync(layout.Canary(resource), cancellation) is null)
                missing.Add(layout.Canary(resource));
        }
        if (missing.Count == 0)
            _report.Good("Canaries: all four resources are written");
        else
            _report.Bad(PeerFault.NotSynced, $"Canaries missing: {string.Join(", ", missing)}");
    }

    private async Task DataAsync(EtcdKVStore store, Layout layout, CancellationToken cancellation)
    {
        var counts = new List<string>();
        foreach (var resource in RemoteResources.OfEveryCluster)
            counts.Add($"{await store.CountAsync(layout.Prefix(resource), cancellation)} {Name(resource)}");
        _report.Good($"Data: {string.Join(", ", counts)}");
    }

    private static string Name(RemoteResource resource) => resource == RemoteResource.IpEntries ? "endpoints" : resource.ToString().ToLowerInvariant();
}
