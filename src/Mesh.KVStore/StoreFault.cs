using System.Security.Authentication;

namespace Mesh.KVStore;

/// <summary>What kind of thing is wrong between us and a store. The order is that of the steps of a connection.</summary>
public enum StoreFault
{
    None,

    /// <summary>The host's name has no address, or nobody says which.</summary>
    Dns,

    /// <summary>The host is there and nobody listens on the port.</summary>
    Refused,

    /// <summary>No answer to the attempt to connect: no route, a firewall, a host that is down.</summary>
    Unreachable,

    /// <summary>The server's certificate comes from an authority that our bundle does not hold.</summary>
    UnknownAuthority,

    /// <summary>The server's certificate is for other names.</summary>
    WrongServerName,

    /// <summary>A certificate in use, theirs or ours, is over.</summary>
    CertificateExpired,

    /// <summary>A certificate begins in the future: one of the clocks is wrong.</summary>
    CertificateNotYetValid,

    /// <summary>The server does not accept our certificate.</summary>
    CertificateRefused,

    /// <summary>Our own certificate, key or bundle cannot be read.</summary>
    CertificateUnusable,

    /// <summary>Something else in the handshake: another protocol on the port, no common version.</summary>
    TlsFailed,

    /// <summary>The server knows us and does not let us.</summary>
    AccessDenied,

    /// <summary>The server answers that it has no leader, or is not ready.</summary>
    NoQuorum,

    /// <summary>The store is full: nothing new can be written there.</summary>
    NoSpace,

    /// <summary>The connection stands, or is taken, and nothing answers on it.</summary>
    Frozen,

    /// <summary>A connection that stood broke.</summary>
    Broken,

    /// <summary>None of the above: the text says what.</summary>
    Other,
}

/// <summary>A connection that could not be made in time; says at which step.</summary>
internal sealed class DialException(StoreFault fault, string message, Exception? inner = null) : IOException(message, inner)
{
    public StoreFault Fault { get; } = fault;
}

/// <summary>A handshake that failed for a reason that we know.</summary>
internal sealed class TlsFaultException(StoreFault fault, string message, Exception? inner = null) : AuthenticationException(message, inner)
{
    public StoreFault Fault { get; } = fault;
}
