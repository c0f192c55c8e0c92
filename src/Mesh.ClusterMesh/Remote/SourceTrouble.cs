using System.Globalization;
using System.Text;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// Why a relay's copy of a peer is not proved at present, in the relay's words; written beside the copy (Keys.SourceTrouble), as one line:
/// CLASS since TIME: TEXT. A line that is none of ours is all text.
/// </summary>
/// <param name="Fault">What the relay met, as it would be told of a peer that is read directly.</param>
/// <param name="Since">When the relay was last connected to the peer; null when it never was, or does not know.</param>
public sealed record SourceTrouble(PeerFault Fault, DateTimeOffset? Since, string Text)
{
    private const int Longest = 512;
    private const string Never = "start";
    private const string Between = " since ";

    public byte[] Encode() => Encoding.UTF8.GetBytes(
        $"{Fault.Name()}{Between}{Since?.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture) ?? Never}: {Text}");

    /// <summary>Never fails: whatever is there is a trouble. Control characters become question marks.</summary>
    public static SourceTrouble Decode(ReadOnlySpan<byte> utf8)
    {
        var line = string.Concat(Encoding.UTF8.GetString(utf8[..Math.Min(utf8.Length, Longest)]).Select(c => char.IsControl(c) ? '?' : c));
        var (word, colon) = (line.IndexOf(Between, StringComparison.Ordinal), line.IndexOf(": ", StringComparison.Ordinal));
        if (word <= 0 || colon < word || PeerFaults.OfName(line[..word]) is not { } fault)
            return new SourceTrouble(PeerFault.SourceLost, null, line);
        var time = line[(word + Between.Length)..colon];
        DateTimeOffset? since = DateTimeOffset.TryParse(time, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var at) ? at : null;
        return since is null && time != Never
            ? new SourceTrouble(PeerFault.SourceLost, null, line)
            : new SourceTrouble(fault, since, line[(colon + 2)..]);
    }
}
