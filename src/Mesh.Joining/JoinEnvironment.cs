using Mesh.Joining.Listening;

namespace Mesh.Joining;

/// <summary>What the taker's side of a join runs in.</summary>
public sealed record JoinEnvironment
{
    public static JoinEnvironment Default { get; } = new();

    public TimeProvider Time { get; init; } = TimeProvider.System;

    /// <summary>Where sockets come from: the network namespace of the cluster's control plane, for instance.</summary>
    public OpenSocket OpenSocket { get; init; } = Sockets.Open;

    /// <summary>One line per step for people.</summary>
    public Action<string> Log { get; init; } = _ => { };

    /// <summary>Called before each step that changes something; a test may throw here as kill -9 would.</summary>
    internal Action<string> Step { get; init; } = _ => { };
}
