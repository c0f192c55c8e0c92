using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Mesh.AgentApi;
using Mesh.Lab.Native;
using Mesh.Lab.Processes;
using Mesh.Model;

namespace Mesh.Lab.Pods;

/// <summary>
/// A pod without Kubernetes: a network namespace on a node that has an agent, wired and registered as the CNI would, and one command inside.
/// It ends with its command: interface, namespace and registration go.
/// </summary>
/// <param name="Agent">Unix socket of the node's agent.</param>
/// <param name="Name">Its namespace is called mesh-pod-NAME, and its CiliumEndpoint object, which gives it an identity, NAME.</param>
/// <param name="Addresses">One of each family at most, out of the node's pod ranges.</param>
public sealed record HostPod(string Agent, string Kubernetes, string Name, IReadOnlyList<IpAddr> Addresses)
{
    private const int TunnelOverheadBytes = 70;
    private const int UnderlayMtu = 1500;

    private string Space => $"mesh-pod-{Name}";

    // Names of interfaces end at 15 characters.
    private string Interface => $"lxc{Fingerprint:x8}";

    private uint Fingerprint => BitConverter.ToUInt32(SHA256.HashData(Encoding.UTF8.GetBytes($"{Kubernetes}/{Name}")));

    /// <summary>Runs the command until it ends or until cancelled; then it gets SIGTERM, and ten seconds.</summary>
    /// <returns>Its exit code.</returns>
    /// <exception cref="LabException">There is such a pod already, or the kernel refused; says what.</exception>
    /// <exception cref="AgentException">The agent cannot be asked, or does not take the pod.</exception>
    public async Task<int> RunAsync(string mesh, IReadOnlyList<string> command, TimeSpan agentPatience, CancellationToken cancel)
    {
        LabStore.RequireRoot();
        if (NetworkNamespace.Exists(Space))
        {
            throw new LabException($"{NetworkNamespace.PathOf(Space)} is there: pod {Name} runs on this machine already, or was killed; "
                + $"`ip netns del {Space}` removes it");
        }
        using var agent = new AgentClient(Agent);
        var routers = await RoutersAsync(agent, agentPatience, cancel);
        NetworkNamespace.Create(Space, () => { });
        try
        {
            await WireAsync(routers, cancel);
            await agent.PutEndpointAsync(new EndpointChangeRequest
            {
                K8sNamespace = Kubernetes,
                K8sPodName = Name,
                InterfaceName = Interface,
                Mac = Mac(1),
                HostMac = Mac(2),
                Addressing = new AddressPair
                {
                    Ipv4 = Addresses.Where(address => !address.IsV6).Select(address => $"{address}").FirstOrDefault(),
                    Ipv6 = Addresses.Where(address => address.IsV6).Select(address => $"{address}").FirstOrDefault(),
                },
            }, cancel);
            return await CommandAsync(mesh, command, cancel);
        }
        finally
        {
            await TakeDownAsync(agent);
        }
    }

    /// <summary>This process becomes the command, inside the pod.</summary>
    public static void Become(string name, IReadOnlyList<string> command)
    {
        var program = Execution.Find(command[0]);
        Libc.EnterNetworkNamespace(NetworkNamespace.PathOf($"mesh-pod-{name}"));
        Execution.Become(program, command);
    }

    /// <summary>The node's own addresses among its pods, which its agent knows, in the order of <see cref="Addresses"/>.</summary>
    private async Task<IReadOnlyList<IpAddr>> RoutersAsync(AgentClient agent, TimeSpan patience, CancellationToken cancel)
    {
        var waited = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                var nodes = await agent.GetNodesAsync(cancel);
                if (nodes.NodesAdded?.FirstOrDefault(node => node.Name == nodes.Self)?.PrimaryAddress is { } self)
                    return [.. Addresses.Select(address => RouterOf(address, address.IsV6 ? self.Ipv6.AllocRange : self.Ipv4.AllocRange, nodes.Self!))];
                if (waited.Elapsed >= patience)
                    throw new LabException($"{nodes.Self} does not know its own pod ranges yet: is there a CiliumNode object of its name?");
            }
            catch (AgentException) when (waited.Elapsed < patience)
            {
                // Not there yet.
            }
            await Task.Delay(TimeSpan.FromMilliseconds(200), cancel);
        }
    }

    private static IpAddr RouterOf(IpAddr address, string? range, string node)
    {
        if (range is null || !IpPrefix.TryParse(range, out var pods) || !pods.Contains(address))
            throw new LabException($"{address} is not in the pod range of {node} ({range ?? "none of this family"})");
        var router = pods.Address.IsV6 ? IpAddr.V6(pods.Address.Value + 1) : IpAddr.V4((uint)pods.Address.Value + 1);
        return router != address ? router : throw new LabException($"{address} is the node's own address among its pods");
    }

    private string Mac(int side) => $"02:{Fingerprint >> 24:x2}:{(Fingerprint >> 16) & 255:x2}:{(Fingerprint >> 8) & 255:x2}:{Fingerprint & 255:x2}:0{side}";

    private async Task WireAsync(IReadOnlyList<IpAddr> routers, CancellationToken cancel)
    {
        var inside = new List<string> { "link set lo up", $"link set eth0 mtu {UnderlayMtu - TunnelOverheadBytes} up" };
        foreach (var (address, router) in Addresses.Zip(routers))
        {
            var length = address.Bits;
            inside.Add($"addr add {address}/{length} dev eth0{(address.IsV6 ? " nodad" : "")}");
            inside.Add($"route add {router}/{length} dev eth0{(address.IsV6 ? "" : " scope link")}");
            inside.Add($"route add default via {router} dev eth0 src {address}");
        }
        await IpAsync([],
            [$"link add name {Interface} address {Mac(2)} type veth peer name eth0 address {Mac(1)} netns {Space}", $"link set {Interface} up"], cancel);
        await IpAsync(["-n", Space], inside, cancel);
    }

    private async Task<int> CommandAsync(string mesh, IReadOnlyList<string> command, CancellationToken cancel)
    {
        using var process = Process.Start(new ProcessStartInfo(mesh, ["pod", "enter", Name, "--", .. command]))
            ?? throw new LabException($"{command[0]} could not be started");
        try
        {
            await process.WaitForExitAsync(cancel);
        }
        catch (OperationCanceledException)
        {
            // Not Kill: the command may have something to finish.
            Signal(process.Id, SigTerm);
            using var end = new CancellationTokenSource(TimeSpan.FromSeconds(10));
            try
            {
                await process.WaitForExitAsync(end.Token);
            }
            catch (OperationCanceledException)
            {
                process.Kill(entireProcessTree: true);
                await process.WaitForExitAsync(CancellationToken.None);
            }
        }
        return process.ExitCode;
    }

    private async Task TakeDownAsync(AgentClient agent)
    {
        try
        {
            await agent.DeleteEndpointAsync(Kubernetes, Name);
        }
        catch (AgentException e)
        {
            // The agent finds at its next start that the interface is gone.
            await Console.Error.WriteLineAsync($"mesh: pod {Name} ended, but its agent could not be told: {e.Message}");
        }
        await IpAsync([], [$"link del {Interface}"], CancellationToken.None);
        NetworkNamespace.Delete(Space);
    }

    private const int SigTerm = 15;

    private static void Signal(int pid, int number)
    {
        var fd = Libc.OpenPid(pid);
        if (fd < 0)
            return;
        Libc.SignalPid(fd, number);
        Libc.Close(fd);
    }

    private static async Task IpAsync(IReadOnlyList<string> where, IReadOnlyList<string> lines, CancellationToken cancel)
    {
        using var ip = Process.Start(new ProcessStartInfo("ip", [.. where, "-batch", "-"])
        {
            RedirectStandardInput = true,
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        })!;
        await ip.StandardInput.WriteAsync(string.Join('\n', lines).AsMemory(), cancel);
        ip.StandardInput.Close();
        var output = ip.StandardOutput.ReadToEndAsync(cancel);
        var errors = await ip.StandardError.ReadToEndAsync(cancel);
        await output;
        await ip.WaitForExitAsync(cancel);
        if (ip.ExitCode != 0)
            throw new LabException($"ip: {errors.Trim().ReplaceLineEndings("; ")}");
    }
}
