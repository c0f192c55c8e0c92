namespace Mesh.Cni;

/// <summary>What the runtime is told instead of a result: a code of the specification and one line that names the thing and the mend.</summary>
internal sealed class CniException(CniCode code, string message, string? details = null) : Exception(message)
{
    public CniCode Code => code;

    /// <summary>What else is known, for people.</summary>
    public string? Details => details;
}

/// <summary>Below 100 as the specification has them, above ours.</summary>
internal enum CniCode
{
    IncompatibleVersion = 1,
    UnsupportedField = 2,

    /// <summary>The container is gone: the runtime need not call DEL.</summary>
    UnknownContainer = 3,
    BadEnvironment = 4,
    InputOutput = 5,
    Undecodable = 6,
    BadConfiguration = 7,
    TryAgainLater = 11,

    /// <summary>STATUS: no ADD can succeed now.</summary>
    NotAvailable = 50,

    /// <summary>The agent refused.</summary>
    Refused = 100,

    /// <summary>The kernel refused.</summary>
    Kernel = 101,

    /// <summary>CHECK: something is not as ADD left it.</summary>
    Changed = 102,
}
