using Mesh.Bpf;
using Mesh.Datapath.Devices;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Masquerade;

namespace Mesh.Datapath;

/// <summary>Before the first start and after the last: whether this kernel takes the programs, and taking the datapath away.</summary>
public static class NodeDatapath
{
    /// <summary>As small as maps get: nothing is ever in them.</summary>
    private const uint FewAddresses = 1024;

    /// <summary>Loads every program onto maps of their own, attaches none, and lets go of all.</summary>
    /// <param name="bpffs">Directory on a bpffs that holds nothing else; what is pinned there goes with its mount.</param>
    /// <exception cref="VerifierException">The kernel refused a program.</exception>
    /// <exception cref="BpfException">It refused a map, or is not allowed to us.</exception>
    public static void TryLoad(string bpffs)
    {
        var pins = new PinDirectory(bpffs);
        pins.Create();
        using var objects = DatapathObjects.Load(pins, default, FewAddresses);
    }

    /// <summary>Has the kernel judge the rules that masquerade pods, and keeps none of them.</summary>
    /// <returns>Why it refused, and the mend; null when it did not.</returns>
    public static string? TryMasquerade()
    {
        try
        {
            MasqueradeTable.Try();
            return null;
        }
        catch (DatapathException e)
        {
            return e.Message;
        }
    }

    /// <summary>Takes away what agents leave in place on purpose when they stop: links, with them the programs; maps; the devices, with them
    /// addresses and routes; the rules that masquerade. Of this network namespace. What is not there is no fault.</summary>
    /// <param name="bpfRoot">As the agent's --bpf-root.</param>
    /// <returns>What was there and is gone.</returns>
    /// <exception cref="DatapathException">Something stays.</exception>
    public static IReadOnlyList<string> Remove(string bpfRoot)
    {
        var removed = new List<string>();
        try
        {
            if (Directory.Exists(bpfRoot))
            {
                Directory.Delete(bpfRoot, recursive: true);
                removed.Add(bpfRoot);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DatapathException($"cannot remove the pins in {bpfRoot}: {e.Message}", e);
        }
        using var netlink = new Rtnetlink();
        // mesh_net is mesh_host's other end, and goes with it.
        foreach (var name in new[] { NodeDevices.HostName, NodeDevices.NetName, NodeDevices.TunnelName })
        {
            if (netlink.Link(name) is not { } link)
                continue;
            netlink.DeleteLink(link.Index);
            removed.Add($"device {name}");
        }
        if (MasqueradeTable.Remove())
            removed.Add($"nftables table inet {MasqueradeTable.Name}");
        return removed;
    }
}
