namespace Mesh.KVStore;

/// <summary>Where etcd is and how to prove to it who we are. File names are read again at each TLS handshake, so a rotated
/// certificate needs no restart.</summary>
public sealed record EtcdOptions
{
    /// <summary>http:// or https:// URLs, at least one. They are tried in random order.</summary>
    public required IReadOnlyList<string> Endpoints { get; init; }

    /// <summary>PEM file with the authorities a server certificate must come from; null trusts those of the operating system.</summary>
    public string? TrustedCaFile { get; init; }

    /// <summary>PEM file of the client certificate; its common name is the etcd user. Null together with <see cref="KeyFile"/>.</summary>
    public string? CertFile { get; init; }

    public string? KeyFile { get; init; }

    public string? Username { get; init; }

    public string? Password { get; init; }

    /// <summary>Accepts any server certificate. For laboratories only: anybody on the path can then pose as the server.</summary>
    public bool InsecureSkipTlsVerify { get; init; }

    /// <summary>Keys per page of a list. A larger one is hardly faster, and what it leaves behind must be collected (200,000 addresses in pages
    /// of 5,000: 50 MB more in an agent, at the moment they are all in); a smaller one is slower. A page that is larger than
    /// <see cref="MaxMessageBytes"/> is asked for in smaller ones.</summary>
    public int PageSize { get; init; } = 1500;

    /// <summary>The largest answer that is taken into memory.</summary>
    public int MaxMessageBytes { get; init; } = 256 * 1024 * 1024;

    /// <summary>One attempt of a read of one key or of a write; a server that stopped answering is noticed after it.</summary>
    public TimeSpan CallDeadline { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>One attempt of one page of a list.</summary>
    public TimeSpan ListDeadline { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Attempts of a unary call beyond the first. Eight last about five seconds against a refused connection.</summary>
    public int RetryAttempts { get; init; } = 8;

    /// <summary>
    /// How often a watch compares itself with the store, since etcd up to 3.4 can lose watch events without an error. An audit asks
    /// for the number of keys and the names of those changed since the last audit; a difference that silence of twice
    /// <see cref="AuditGrace"/> does not mend makes the watch list again. Timeout.InfiniteTimeSpan turns it off.
    /// </summary>
    public TimeSpan AuditInterval { get; init; } = TimeSpan.FromSeconds(45);

    /// <summary>How long an event may be under way, while nothing else arrives, before an audit calls it lost.</summary>
    public TimeSpan AuditGrace { get; init; } = TimeSpan.FromSeconds(3);

    /// <summary>The same for a server that calls itself a door of ours (header <see cref="DoorHeader"/>): there the question is cheap,
    /// so that what was lost is back within two seconds.</summary>
    public TimeSpan DoorAuditInterval { get; init; } = TimeSpan.FromSeconds(1.1);

    public TimeSpan DoorAuditGrace { get; init; } = TimeSpan.FromSeconds(0.25);

    /// <summary>What bounds the audits against doors of the whole process.</summary>
    public AuditPace Pace { get; init; } = AuditPace.OfProcess;

    /// <summary>What bounds the questions of the whole process whether its stores live.</summary>
    public AuditPace LivenessPace { get; init; } = AuditPace.OfLiveness;

    /// <summary>What bounds the long lists of the whole process.</summary>
    public ListTurns Turns { get; init; } = ListTurns.OfProcess;

    /// <summary>Response header by which a door of ours can be told from an etcd.</summary>
    public const string DoorHeader = "mesh-door";

    /// <summary>How often the status looks at the certificate files between handshakes, so that a broken one is noticed in time. Less
    /// often, up to every two minutes, where many peers have files of their own.</summary>
    public TimeSpan CertificateCheckInterval { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>All faults of these options at once; empty when there are none.</summary>
    public IReadOnlyList<string> Validate()
    {
        var faults = new List<string>();
        if (Endpoints.Count == 0)
            faults.Add("endpoints: none given; name at least one URL like https://10.0.0.1:2379");
        foreach (var endpoint in Endpoints)
        {
            if (!Uri.TryCreate(endpoint, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https") || uri.Host.Length == 0)
                faults.Add($"endpoints: '{endpoint}' is not a URL; write http://HOST:PORT or https://HOST:PORT");
            else if (uri.Scheme == "http" && (CertFile ?? TrustedCaFile) is not null)
                faults.Add($"endpoints: '{endpoint}' is not encrypted although certificate files are given; write https://");
        }
        if (CertFile is null != KeyFile is null)
            faults.Add($"{(CertFile is null ? "cert-file" : "key-file")}: missing; cert-file and key-file go together");
        if (Username is null != Password is null)
            faults.Add($"{(Username is null ? "username" : "password")}: missing; username and password go together");
        if (PageSize is < 1 or > 100_000)
            faults.Add($"page size {PageSize}: allowed is 1 to 100000");
        if (MaxMessageBytes < 2 * 1024 * 1024)
            faults.Add($"largest message {MaxMessageBytes}: allowed is 2097152 and more, since a value may have 1.5 MiB");
        return faults;
    }
}
