using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Observing;
using Mesh.Model;

namespace Mesh.Cli.Commands.Observe;

internal enum Verdict
{
    Forwarded,
    Dropped,
    Audit,
}

/// <summary>Who an address is, as far as it is known.</summary>
/// <param name="Pod">namespace/name; "" when it is none, or not known.</param>
/// <param name="Cluster">"" when unknown.</param>
internal sealed record Party(uint Identity, string Cluster, string Pod, IReadOnlyList<string> Labels)
{
    public static Party Unknown { get; } = new(0, "", "", []);
}

/// <summary>An event with the names of what is in it.</summary>
internal sealed record FlowLine(FlowEvent Event, Party Source, Party Destination, L3n4Addr? Service)
{
    private static readonly string[] FlagNames = ["FIN", "SYN", "RST", "PSH", "ACK"];

    public Verdict Verdict => Event.Reason == DropReason.PolicyAudited ? Verdict.Audit : Event.IsDrop ? Verdict.Dropped : Verdict.Forwarded;

    public string Text(DateTimeOffset now)
    {
        var reason = Event.Reason == DropReason.Forwarded ? "" : $" ({DropNames.Of(Event.Reason)})";
        var service = Service is { } translated ? $" via {translated.HostPort}" : "";
        var packets = Event.Packets > 1 ? string.Create(CultureInfo.InvariantCulture, $", {Event.Packets} packets") : "";
        return string.Create(CultureInfo.InvariantCulture,
            $"{now - Event.Age:HH:mm:ss.fff} {Named(Event.Source, Event.SourcePort, Source)} -> {Named(Event.Destination, Event.DestinationPort, Destination)}")
            + $"{service} {Protocol()}{Flags()} {Event.Direction.ToString().ToLowerInvariant()} {Verdict.ToString().ToUpperInvariant()}{reason}"
            + string.Create(CultureInfo.InvariantCulture, $" {Event.Length} bytes{packets}");
    }

    public string Json(DateTimeOffset now) => JsonSerializer.Serialize(
        new FlowRecord(
            now - Event.Age, Verdict.ToString().ToUpperInvariant(), Event.Reason == DropReason.Forwarded ? null : DropNames.Of(Event.Reason),
            Event.Direction.ToString().ToUpperInvariant(), Protocol(), End(Event.Source, Event.SourcePort, Source),
            End(Event.Destination, Event.DestinationPort, Destination), Service?.HostPort, Event.Packets, Event.Length, Event.Interface),
        FlowJson.Default.FlowRecord);

    private static FlowEnd End(IpAddr? address, ushort port, Party party) => new(address?.ToString(), port, party.Identity,
        party.Cluster.Length > 0 ? party.Cluster : null, party.Pod.Length > 0 ? party.Pod : null, party.Labels.Count > 0 ? party.Labels : null);

    private static string Named(IpAddr? address, ushort port, Party party)
    {
        if (address is not { } known)
            return "(no IP)";
        var where = port == 0 ? known.ToString() : known.IsV6 ? $"[{known}]:{port}" : $"{known}:{port}";
        var who = string.Join(' ', new[]
        {
            party.Cluster.Length > 0 && party.Pod.Length > 0 ? $"{party.Cluster}/{party.Pod}" : party.Cluster + party.Pod,
            party.Identity > 0 ? party.Identity.ToString(CultureInfo.InvariantCulture) : "",
        }.Where(word => word.Length > 0));
        return who.Length > 0 ? $"{where} ({who})" : where;
    }

    private string Protocol() => Event.Protocol switch
    {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        132 => "SCTP",
        var other => other.ToString(CultureInfo.InvariantCulture),
    };

    private string Flags()
    {
        if (Event.TcpFlags == 0)
            return "";
        var names = FlagNames.Where((_, bit) => (Event.TcpFlags & (1 << bit)) != 0);
        return $" {string.Join(',', names)}";
    }
}

/// <summary>One line of `-o json`.</summary>
internal sealed record FlowRecord(DateTimeOffset Time, string Verdict, string? Reason, string Direction, string Protocol, FlowEnd Source,
    FlowEnd Destination, string? Service, ulong Packets, uint Length, uint Interface);

internal sealed record FlowEnd(string? Address, ushort Port, uint Identity, string? Cluster, string? Pod, IReadOnlyList<string>? Labels);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(FlowRecord))]
internal sealed partial class FlowJson : JsonSerializerContext;
