using System.Collections.Concurrent;
using System.Globalization;
using System.Text;

namespace Mesh.Joining.Listening;

/// <summary>What happened at a join listener since it was made; never reset.</summary>
public sealed class JoinCounters
{
    private readonly ConcurrentDictionary<string, long> _refused = new(StringComparer.Ordinal);
    private long _joined;
    private long _connections;
    private long _handshakeFailures;

    public long Joined => Interlocked.Read(ref _joined);

    public long Connections => Interlocked.Read(ref _connections);

    /// <summary>Connections that ended before TLS was done.</summary>
    public long HandshakeFailures => Interlocked.Read(ref _handshakeFailures);

    /// <summary>Refused requests by code: token-unknown, token-edited, token-expired, token-used, rate-limited, malformed, …</summary>
    public IReadOnlyDictionary<string, long> Refused => _refused;

    internal void Join() => Interlocked.Increment(ref _joined);

    internal void Connection() => Interlocked.Increment(ref _connections);

    internal void HandshakeFailure() => Interlocked.Increment(ref _handshakeFailures);

    internal void Refusal(string code) => _refused.AddOrUpdate(code, 1, (_, count) => count + 1);

    /// <summary>Lines for a Prometheus page.</summary>
    public string Page(string prefix)
    {
        var page = new StringBuilder();
        void Counter(string name, string help, IEnumerable<(string Labels, long Value)> samples)
        {
            page.Append(CultureInfo.InvariantCulture, $"# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} counter\n");
            foreach (var (labels, value) in samples)
                page.Append(CultureInfo.InvariantCulture, $"{prefix}{name}{labels} {value}\n");
        }
        Counter("joins_total", "Number of clusters that joined by a token", [("", Joined)]);
        Counter("join_connections_total", "Number of connections to the join listener", [("", Connections)]);
        Counter("join_handshake_failures_total", "Number of connections to the join listener that ended before TLS was done", [("", HandshakeFailures)]);
        Counter("join_refusals_total", "Number of refused requests at the join listener",
            Refused.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => ($"{{code=\"{pair.Key}\"}}", pair.Value)));
        return page.ToString();
    }
}
