using System.Globalization;
using System.Text.Json;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>Counts what goes to and from one TCP port of this network namespace, headers included: two counters of the kernel's packet
/// filter, which leave with this object.</summary>
internal sealed class PortBytes : IDisposable
{
    private readonly string _table;

    public PortBytes(int port)
    {
        _table = string.Create(CultureInfo.InvariantCulture, $"mesh_bench_{port}");
        var number = port.ToString(CultureInfo.InvariantCulture);
        Command.Run("nft", $"add table inet {_table}; add counter inet {_table} up; add counter inet {_table} down; "
            + $"add chain inet {_table} in {{ type filter hook input priority 0; }}; "
            + $"add rule inet {_table} in tcp dport {number} counter name up; add rule inet {_table} in tcp sport {number} counter name down");
    }

    /// <summary>So far: to the port, and from it.</summary>
    public (long Up, long Down) Read()
    {
        using var answer = JsonDocument.Parse(Command.Run("nft", "-j", "list", "counters", "table", "inet", _table));
        long Of(string name) => answer.RootElement.GetProperty("nftables").EnumerateArray()
            .Where(item => item.TryGetProperty("counter", out var counter) && counter.GetProperty("name").GetString() == name)
            .Sum(item => item.GetProperty("counter").GetProperty("bytes").GetInt64());
        return (Of("up"), Of("down"));
    }

    public void Dispose() => Command.Run("nft", "delete", "table", "inet", _table);
}
