using System.Globalization;
using Mesh.Model;

namespace Mesh.Cli.Commands.Observe;

/// <summary>Which flows are wanted; what is not given lets everything through.</summary>
internal sealed record FlowFilter
{
    /// <summary>An address, a range, or a pod (namespace/name) of either.</summary>
    public string? From { get; init; }

    public string? To { get; init; }

    public ushort? Port { get; init; }

    public L4Protocol? Protocol { get; init; }

    public Verdict? Verdict { get; init; }

    /// <summary>What must be the name of a pod because it is neither address nor range, and the flag that it was given to.</summary>
    public IEnumerable<(string Flag, string Name)> Names
    {
        get
        {
            foreach (var (flag, wanted) in new[] { ("--from", From), ("--to", To) })
                if (wanted is not null && !IpAddr.TryParse(wanted, out _) && !IpPrefix.TryParse(wanted, out _))
                    yield return (flag, wanted);
        }
    }

    public bool Wants(FlowLine line) =>
        (Verdict is null || line.Verdict == Verdict)
        && (Protocol is null || line.Event.Protocol == (byte)Protocol)
        && (Port is null || line.Event.SourcePort == Port || line.Event.DestinationPort == Port || line.Service?.Port == Port)
        && Is(From, line.Event.Source, line.Source)
        && (Is(To, line.Event.Destination, line.Destination) || (To is not null && line.Service is { } service && Is(To, service.Address, Party.Unknown)));

    /// <exception cref="CliException">Names what is wrong and what is allowed.</exception>
    public static FlowFilter Parse(string? from, string? to, string? port, string? protocol, string? verdict) => new()
    {
        From = from,
        To = to,
        Port = port is null ? null
            : ushort.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number > 0 ? number
            : throw new CliException($"--port {port}: must be a number from 1 to 65535"),
        Protocol = protocol?.ToUpperInvariant() switch
        {
            null => null,
            "ICMP" => (L4Protocol)1,
            "ICMPV6" => (L4Protocol)58,
            var name when L4Protocols.Parse(name) is var known and not L4Protocol.None => known,
            _ => throw new CliException($"--protocol {protocol}: must be tcp, udp, sctp, icmp or icmpv6"),
        },
        Verdict = verdict?.ToLowerInvariant() switch
        {
            null => null,
            "forwarded" => Observe.Verdict.Forwarded,
            "dropped" => Observe.Verdict.Dropped,
            "audit" => Observe.Verdict.Audit,
            _ => throw new CliException($"--verdict {verdict}: must be forwarded, dropped or audit"),
        },
    };

    private static bool Is(string? wanted, IpAddr? address, Party party)
    {
        if (wanted is null)
            return true;
        if (wanted == party.Pod || (party.Pod.Length > 0 && $"default/{wanted}" == party.Pod))
            return true;
        if (address is not { } given)
            return false;
        return IpAddr.TryParse(wanted, out var one) ? one == given : IpPrefix.TryParse(wanted, out var range) && range.Contains(given);
    }
}
