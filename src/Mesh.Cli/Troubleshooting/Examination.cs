using Mesh.ClusterMesh.Remote;

namespace Mesh.Cli.Troubleshooting;

/// <summary>What was found out about one peer, line by line as it is printed, and the first real cause.</summary>
internal sealed class Examination(string cluster)
{
    private readonly List<string> _lines = [];

    public string Cluster { get; } = cluster;

    public IReadOnlyList<string> Lines => _lines;

    /// <summary>None as long as nothing is wrong.</summary>
    public PeerFault Fault { get; private set; }

    public string? Cause { get; private set; }

    /// <summary>The number that the peer announces; 0 until it was read.</summary>
    public uint ClusterId { get; set; }

    /// <summary>What was examined is a relay's copy of the peer.</summary>
    public bool Mirrored { get; set; }

    public void Title(string text) => _lines.Add(text);

    public void Good(string text, int depth = 1) => Add("✅", text, depth);

    public void Note(string text, int depth = 1) => Add("ℹ️ ", text, depth);

    public void Warn(string text, int depth = 1) => Add("⚠️ ", text, depth);

    /// <summary>What does not work; the first of them is the cause, what follows are consequences.</summary>
    public void Bad(PeerFault fault, string text, string? cause = null, int depth = 1)
    {
        Add("❌", text, depth);
        if (Fault != PeerFault.None)
            return;
        Fault = fault;
        Cause = cause ?? text;
    }

    public void Plain(string text) => _lines.Add(text);

    /// <summary>Another endpoint of the same peer works, so what was wrong with this one is not why.</summary>
    public void Forgive() => (Fault, Cause) = (PeerFault.None, null);

    public void Conclude()
    {
        _lines.Add("");
        if (Fault == PeerFault.None)
        {
            _lines.Add("✅ No fault was found");
            if (Mirrored)
                _lines.Add($"ℹ️  {Cluster} is read through a relay: what it says of itself and of {Cluster} is all there is to see from here");
            return;
        }
        _lines.Add($"❌ Cause: {Fault.Name()}: {Cause}");
        if (Fault.Mend(Cluster) is { Length: > 0 } mend)
            _lines.Add($"💡 {char.ToUpperInvariant(mend[0])}{mend[1..]}");
    }

    private void Add(string mark, string text, int depth) => _lines.Add($"{new string(' ', depth == 1 ? 3 : 5)}{mark} {text}");
}
