namespace Mesh.AgentApi;

/// <summary>
/// What our programs answer to the question for their version in Cilium's words: the release of Cilium whose formats they speak, and
/// behind it, where semantic versions have their pre-release and Cilium's tools cut, our own. The tools choose by it what they ask.
/// </summary>
public static class SpokenVersion
{
    public const string Cilium = "1.17.0";

    /// <param name="own">Version of the program, such as 0.1.0.</param>
    /// <returns>1.17.0-mesh.0.1.0.</returns>
    public static string Of(string own) => $"{Cilium}-mesh.{own}";
}

/// <summary>`cilium version -o json`.</summary>
public sealed record VersionAnswer
{
    public required VersionOfProgram Client { get; init; }

    /// <summary>Null where there is no agent.</summary>
    public VersionOfProgram? Daemon { get; init; }
}

/// <param name="Version">As <see cref="SpokenVersion"/> has it.</param>
/// <param name="Arch">Such as linux/amd64; "" when unknown.</param>
public sealed record VersionOfProgram(string Version, string Arch = "");
