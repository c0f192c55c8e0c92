namespace Mesh.Netlink;

/// <summary>What the kernel refused, in one line: what was tried, the kernel's own words, and the error's name and number.</summary>
public sealed class NetlinkException(string message, int error = 0) : Exception(message)
{
    /// <summary>The positive errno; 0 when the kernel was not even asked.</summary>
    public int Error => error;
}
