using System.Text.Json.Nodes;

namespace Mesh.Cli.Reachability;

/// <summary>A pod that takes part: it asks, or it answers, or both.</summary>
/// <param name="Role">What its server calls itself in every answer.</param>
/// <param name="Name">For people: NAMESPACE/POD, or CLUSTER/NODE/POD in a lab.</param>
/// <param name="Cluster">Name of its cluster.</param>
/// <param name="Addresses">At least one; one of each family.</param>
internal sealed record Workload(string Role, string Name, string Cluster, IReadOnlyList<string> Addresses);

/// <summary>What must come of a request.</summary>
/// <param name="AnsweredBy">Whose answers will do; empty when it must be dropped.</param>
internal readonly record struct Expectation(IReadOnlyList<string> AnsweredBy)
{
    public static readonly Expectation Dropped = new([]);

    public bool IsDropped => AnsweredBy.Count == 0;

    public static Expectation Answer(params IReadOnlyList<string> roles) => new(roles);

    public override string ToString() => IsDropped ? "nothing, as it must be dropped" : $"an answer of {string.Join(" or ", AnsweredBy)}";
}

/// <summary>One request.</summary>
/// <param name="Name">Unique within its scenario: curl-ipv4-0.</param>
/// <param name="To">For people: who, and at which address.</param>
/// <param name="Target">HOST:PORT, an IPv6 address in brackets.</param>
internal sealed record TestAction(string Name, Workload From, string To, string Target, Expectation Expected)
{
    public override string ToString() => $"{From.Name} ({Own}) -> {To}";

    /// <summary>The address that it asks from, when its target is an address.</summary>
    private string Own => From.Addresses.FirstOrDefault(one => one.Contains(':', StringComparison.Ordinal) == (Target[0] == '[')) ?? From.Addresses[0];
}

/// <param name="SkipReason">Null when it can be done here.</param>
internal sealed record Scenario(string Name, IReadOnlyList<TestAction> Actions, string? SkipReason = null);

/// <summary>Scenarios that hold under some policies.</summary>
/// <param name="Policies">Complete objects, put into every cluster while the scenarios run.</param>
/// <param name="SkipReason">Null when it can be done here.</param>
internal sealed record ConnectivityTest(string Name, IReadOnlyList<Scenario> Scenarios, IReadOnlyList<JsonObject> Policies, string? SkipReason = null);

/// <summary>Where a suite is carried out: clusters on Kubernetes, or a lab.</summary>
internal interface IStage
{
    /// <summary>Stands in brackets in front of every line: the namespace, or the lab's cluster.</summary>
    string Name { get; }

    /// <summary>Runs a command in a pod and waits for its end.</summary>
    /// <exception cref="CliException">It could not be run at all.</exception>
    Task<CommandOutcome> RunAsync(Workload from, IReadOnlyList<string> command, CancellationToken cancel);

    /// <summary>Puts policies in force; returns when the kernels of all nodes hold them.</summary>
    /// <exception cref="CliException">They did not come into force in time; says where.</exception>
    Task ApplyAsync(IReadOnlyList<JsonObject> policies, CancellationToken cancel);

    /// <summary>Takes them away again; returns when no node holds them.</summary>
    /// <exception cref="CliException">A node went on holding them.</exception>
    Task WithdrawAsync(IReadOnlyList<JsonObject> policies, CancellationToken cancel);

    /// <summary>Writes what helps to find the cause into a directory, which it makes.</summary>
    Task CollectAsync(string directory, CancellationToken cancel);
}

/// <param name="ExitCode">0 for success.</param>
internal sealed record CommandOutcome(int ExitCode, string Output, string Errors);

/// <summary>How actions are made of pods.</summary>
internal static class Actions
{
    public const int Port = 8080;

    /// <summary>A request to a pod, once for each family that both have.</summary>
    public static IEnumerable<TestAction> ToPod(int number, Workload client, Workload to, Expectation? expected = null, int port = Port) =>
        from address in to.Addresses
        where client.Addresses.Any(own => IsV6(own) == IsV6(address))
        select new TestAction($"curl-{Family(address)}-{number}", client, $"{to.Name} ({HostPort(address, port)})", HostPort(address, port),
            expected ?? Expectation.Answer(to.Role));

    /// <summary>A request to a name, or to an address that is no pod's.</summary>
    public static IEnumerable<TestAction> ToAddresses(int number, Workload client, string what, IEnumerable<string> addresses, int port,
        Expectation expected) =>
        from address in addresses
        where !System.Net.IPAddress.TryParse(address, out _) || client.Addresses.Any(own => IsV6(own) == IsV6(address))
        select new TestAction($"curl-{Family(address)}-{number}", client, $"{what} ({HostPort(address, port)})", HostPort(address, port), expected);

    public static string HostPort(string host, int port) => IsV6(host) ? $"[{host}]:{port}" : $"{host}:{port}";

    private static bool IsV6(string address) => address.Contains(':', StringComparison.Ordinal);

    private static string Family(string address) => IsV6(address) ? "ipv6" : System.Net.IPAddress.TryParse(address, out _) ? "ipv4" : "name";
}
