namespace Mesh.StateDB;

public enum RowState
{
    Pending,
    Done,
    Error,
}

/// <summary>What became of a row in the target, kept on the row for people to look at.</summary>
/// <param name="Error">Null unless <see cref="State"/> is Error: one line that names the thing and the cause.</param>
/// <param name="Attempts">Failed attempts in a row.</param>
/// <param name="Since">Time of the latest attempt; the default for a row not tried yet or done at once.</param>
public sealed record RowStatus(RowState State, string? Error = null, int Attempts = 0, DateTimeOffset Since = default)
{
    public static readonly RowStatus Pending = new(RowState.Pending);
    public static readonly RowStatus Done = new(RowState.Done);
}
