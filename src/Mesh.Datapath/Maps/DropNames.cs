using System.Text;

namespace Mesh.Datapath.Maps;

/// <summary>What a reason is called.</summary>
public static class DropNames
{
    /// <summary>NoServiceBackend → "no service backend", the words of status and the CLI.</summary>
    public static string Of(DropReason reason)
    {
        var words = new StringBuilder();
        foreach (var c in reason.ToString())
        {
            if (char.IsUpper(c) && words.Length > 0)
                words.Append(' ');
            words.Append(char.ToLowerInvariant(c));
        }
        return words.ToString();
    }

    /// <summary>
    /// The words of metric cilium_drop_count_total, no two alike: where Cilium has the same reason, its own. Its connectivity test knows by them what
    /// is dropped in every cluster, and takes all else for a fault.
    /// </summary>
    public static string OfCilium(DropReason reason) => reason switch
    {
        DropReason.InvalidPacket => "Invalid packet",
        DropReason.InvalidSource => "Invalid source ip",
        DropReason.NoServiceBackend => "Service backend not found",
        DropReason.NoTunnel => "No tunnel/encapsulation endpoint (datapath BUG!)",
        DropReason.NoEndpoint => "Stale or unroutable IP",
        DropReason.NoTunnelKey => "Error retrieving tunnel key",
        DropReason.Fragment => "First logical datagram fragment not found",
        DropReason.Conntrack => "CT: Map insertion failed",
        DropReason.TooBig => "Fragmentation needed",
        DropReason.UnknownSender => "Unknown sender",
        DropReason.ForeignIdentity => "Invalid identity",
        DropReason.NotInSourceRange => "Denied by LB src range check",
        DropReason.NatNoPort => "No mapping for NAT masquerade",
        DropReason.NoRoute => "FIB lookup failed",
        DropReason.PolicyDenied => "Policy denied",
        DropReason.PolicyDeniedByDenylist => "Policy denied by denylist",
        // Cilium's word for the moment before what it enforces is known.
        DropReason.PolicyUndecided => "Host datapath not ready",
        _ => Of(reason),
    };
}
