namespace Mesh.Joining.Protocol;

/// <summary>The requests of a join, in order; each is a POST of JSON to /v1/join/NAME, answered by JSON.</summary>
internal static class Calls
{
    public const string Prefix = "/v1/join/";

    /// <summary>Who is the issuer? Changes nothing.</summary>
    public const string Describe = "describe";

    /// <summary>Make ready for datagrams, send some, and try my door. Changes nothing.</summary>
    public const string Probe = "probe";

    /// <summary>What arrived of mine, and how was my door? Changes nothing.</summary>
    public const string ProbeResult = "probe-result";

    /// <summary>First round trip of a join: facts and request against certificate, facts and request.</summary>
    public const string Begin = "begin";

    /// <summary>Second round trip: the issuer's certificate; when the answer comes, the issuer's side is written.</summary>
    public const string Finish = "finish";

    /// <summary>The taker's side is written too: the token is done with.</summary>
    public const string Confirm = "confirm";

    /// <summary>The taker goes back: the issuer does too.</summary>
    public const string Cancel = "cancel";

    /// <summary>Largest request and answer in bytes.</summary>
    public const int BodyMax = 256 << 10;
}

/// <summary>What every request carries: which token, and the proof that one holds it.</summary>
internal sealed record Credential(string TokenId, string Secret);

internal sealed record DescribeRequest(Credential Credential);

/// <param name="Now">The issuer's clock.</param>
/// <param name="Allowed">Findings that the issuer puts up with.</param>
/// <param name="Taker">The only cluster that may take the token.</param>
internal sealed record DescribeAnswer(
    ClusterFacts Issuer, DateTimeOffset Now, DateTimeOffset Expires, IReadOnlyList<string> Allowed, string? Taker);

/// <param name="Nonce">Stands in every datagram of this probe; 16 hexadecimal digits.</param>
/// <param name="Port">Where the taker listens, and where the issuer shall listen.</param>
/// <param name="Listening">Whether the taker hears datagrams at its port.</param>
/// <param name="DoorAddresses">The taker's door, to be tried from the issuer.</param>
/// <param name="Authorities">PEM: who may have signed that door's certificate.</param>
internal sealed record ProbeRequest(
    Credential Credential, string Nonce, int Port, bool Listening, IReadOnlyList<string> DoorAddresses, string Authorities);

/// <param name="Listening">Whether the issuer hears datagrams at the port.</param>
/// <param name="Reason">Why it does not.</param>
/// <param name="Mtu">Of the issuer's way to the taker, by its own interface; 0 when it could not be asked.</param>
/// <param name="Sent">Sizes of the datagrams that the issuer sends, as IP packets in bytes.</param>
internal sealed record ProbeAnswer(bool Listening, string? Reason, int Mtu, IReadOnlyList<int> Sent);

/// <param name="Sent">Sizes that the taker sent: the answer waits until they are there, or a while.</param>
internal sealed record ProbeResultRequest(Credential Credential, string Nonce, IReadOnlyList<int> Sent);

/// <param name="Received">Sizes that arrived at the issuer.</param>
internal sealed record ProbeResultAnswer(IReadOnlyList<int> Received, IReadOnlyList<DoorTrial> Doors);

/// <summary>One address of a door as somebody else finds it.</summary>
/// <param name="Class">ok, or the kind of fault: dns, tcp, tls, authority, expired, name.</param>
/// <param name="Detail">One line for people.</param>
/// <param name="DaysLeft">Of the certificate shown; null when none was seen.</param>
public sealed record DoorTrial(string Address, string Class, string Detail, int? DaysLeft = null);

/// <param name="Request">PEM: certificate request of the taker's client key for the issuer's door.</param>
internal sealed record BeginRequest(Credential Credential, ClusterFacts Taker, string Request);

/// <param name="Certificate">PEM: the taker's client certificate at the issuer's door.</param>
/// <param name="Request">PEM: certificate request of the issuer's client key for the taker's door.</param>
internal sealed record BeginAnswer(ClusterFacts Issuer, string Certificate, string Request);

/// <param name="Certificate">PEM: the issuer's client certificate at the taker's door.</param>
internal sealed record FinishRequest(Credential Credential, string Certificate);

internal sealed record PlainRequest(Credential Credential);

internal sealed record PlainAnswer(string State);

/// <summary>Every refusal.</summary>
internal sealed record RefusalAnswer(string Code, string Message);
