using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Cni.Tests;

/// <summary>A node in a network namespace with a real agent, whose container runtime is the test: it calls the plugin as a process, with the
/// environment and the configuration of the specification.</summary>
public sealed class CniNode : IAsyncDisposable
{
    public const string PodRange = "10.40.1.0/24";

    /// <summary>A machine with more to do than processors takes long to verify an agent's programs.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-cni-").FullName;
    private readonly BpfFileSystem _pins = new();
    private readonly NetworkNamespace _node = new();
    private readonly string _podRanges;
    private readonly IReadOnlyList<string> _flags;
    private Process? _agent;

    /// <param name="podRanges">Of the node; the first address of each is the router's.</param>
    public CniNode(string podRanges = $"{PodRange},fd00:40:1::/64", params IReadOnlyList<string> flags)
    {
        _podRanges = podRanges;
        _flags = flags;
        _node.Shell("sh", "-ec", "ip link set lo up; ip link add underlay type veth peer name wire; ip addr add 172.30.40.1/16 dev underlay; "
            + "ip link set underlay up; ip link set wire up");
        Directory.CreateDirectory(Path.Combine(_directory, "objects"));
        File.WriteAllText(Path.Combine(_directory, "objects", "node.yaml"), NodeManifest());
        Client = new AgentClient(SocketPath, "node", TimeSpan.FromSeconds(15));
    }

    public AgentClient Client { get; }

    public string SocketPath => Path.Combine(_directory, "run", "cilium.sock");

    public string NotesDirectory => Path.Combine(_directory, "run", "deleteQueue");

    public string ConfigurationDirectory => Path.Combine(_directory, "net.d");

    public string ConfigurationPath => Path.Combine(ConfigurationDirectory, "05-cilium.conflist");

    /// <summary>The agent's last words.</summary>
    public string Log => File.Exists(Path.Combine(_directory, "agent.log"))
        ? string.Join('\n', File.ReadLines(Path.Combine(_directory, "agent.log")).TakeLast(30))
        : "";

    public static async Task<CniNode> StartAsync(string podRanges = $"{PodRange},fd00:40:1::/64", params IReadOnlyList<string> flags)
    {
        var node = new CniNode(podRanges, flags);
        try
        {
            await node.StartAgentAsync();
            return node;
        }
        catch
        {
            await node.DisposeAsync();
            throw;
        }
    }

    public async Task StartAgentAsync()
    {
        _agent = ChildThread.Start("/bin/sh",
        [
            "-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh", Path.Combine(_directory, "agent.log"),
            "nsenter", $"--net=/run/netns/{_node.Name}", Path.Combine(AppContext.BaseDirectory, "mesh-agent"),
            "--cluster-name", "tokyo", "--cluster-id", "1", "--node-name", "node", "--source", $"manifests:{Path.Combine(_directory, "objects")}",
            "--bpf-root", Directory.CreateDirectory(Path.Combine(_pins.Path, "node")).FullName, "--socket-path", SocketPath,
            "--state-dir", Path.Combine(_directory, "state"), "--write-cni-conf-when-ready", ConfigurationPath, .. _flags,
        ]);
        await UntilAsync(() => File.Exists(ConfigurationPath) && Call("STATUS", "", "").ExitCode == 0, "the agent ready");
    }

    /// <summary>As a crash does; what is on disk and in the kernel stays.</summary>
    public async Task KillAgentAsync()
    {
        _agent!.Kill();
        await _agent.WaitForExitAsync();
        _agent.Dispose();
        _agent = null;
    }

    /// <summary>Network namespace of a container, with its loopback up as a runtime makes it.</summary>
    public static NetworkNamespace NewContainer()
    {
        var container = new NetworkNamespace();
        container.Shell("ip", "link", "set", "lo", "up");
        return container;
    }

    public static string PathOf(NetworkNamespace space) => $"/run/netns/{space.Name}";

    /// <summary>Calls the plugin in the node's namespace.</summary>
    /// <param name="more">Members of the network configuration, each followed by a comma.</param>
    public CniAnswer Call(string command, string container, string space, string pod = "", string version = "1.1.0", string more = "",
        string device = "eth0")
    {
        using var plugin = Start(command, container, space, pod, version, more, device);
        var errors = plugin.StandardError.ReadToEndAsync();
        var output = plugin.StandardOutput.ReadToEnd();
        plugin.WaitForExit();
        return new CniAnswer(plugin.ExitCode, output, errors.Result);
    }

    public Process Start(string command, string container, string space, string pod = "", string version = "1.1.0", string more = "",
        string device = "eth0")
    {
        var info = new ProcessStartInfo("nsenter", [$"--net=/run/netns/{_node.Name}", Path.Combine(AppContext.BaseDirectory, "mesh-cni")])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        info.Environment["CNI_COMMAND"] = command;
        info.Environment["CNI_CONTAINERID"] = container;
        info.Environment["CNI_NETNS"] = space;
        info.Environment["CNI_IFNAME"] = device;
        info.Environment["CNI_PATH"] = AppContext.BaseDirectory;
        info.Environment["CNI_ARGS"] = pod.Length == 0
            ? ""
            : $"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_INFRA_CONTAINER_ID={container}";
        var plugin = ChildThread.Start(info);
        plugin.StandardInput.Write($$"""{"cniVersion":"{{version}}","name":"cilium",{{more}}"type":"cilium-cni","agent-socket":"{{SocketPath}}"}""");
        plugin.StandardInput.Close();
        return plugin;
    }

    /// <summary>ADD that must succeed.</summary>
    public CniAnswer Add(NetworkNamespace space, string container, string pod, string version = "1.1.0") =>
        Good(Call("ADD", container, PathOf(space), pod, version));

    /// <summary>DEL that must succeed.</summary>
    public CniAnswer Delete(string container, NetworkNamespace? space = null) => Good(Call("DEL", container, space is null ? "" : PathOf(space)));

    public CniAnswer Good(CniAnswer answer)
    {
        Assert.True(answer.ExitCode == 0, $"{answer}\n{Log}");
        return answer;
    }

    /// <summary>The pod reaches its node's router, in both families where it has both.</summary>
    public static void Reaches(NetworkNamespace space, params IEnumerable<string> addresses)
    {
        foreach (var address in addresses)
            space.Shell("ping", "-c", "1", "-W", "5", address);
    }

    public string Shell(params string[] command) => _node.Shell(command);

    /// <summary>Host ends of the pods' devices.</summary>
    public IReadOnlyList<string> Devices() => [.. JsonDocument.Parse(Shell("ip", "-j", "link")).RootElement.EnumerateArray()
        .Select(link => link.GetProperty("ifname").GetString()!)
        .Where(name => name.StartsWith("lxc", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];

    public async Task<IpamStatus> IpamAsync() =>
        JsonSerializer.Deserialize(await Client.GetBytesAsync("ipam"), AgentApiJson.Wire.IpamStatus)!;

    /// <summary>Pods that the agent knows, and addresses that it says are somebody's.</summary>
    public async Task<(int Pods, int Addresses)> CountAsync() =>
        ((await Client.GetEndpointsAsync()).Count, (await IpamAsync()).Allocations?.Count ?? 0);

    /// <summary>Nothing of any pod is left: no device, no registration, no address, no note.</summary>
    public async Task NothingLeftAsync()
    {
        await UntilAsync(async () => await CountAsync() == (0, 0), async () => $"nothing left, but {await CountAsync()}");
        Assert.Empty(Devices());
        Assert.Empty(Directory.Exists(NotesDirectory) ? Directory.GetFiles(NotesDirectory) : []);
    }

    public Task UntilAsync(Func<bool> wanted, string what) => UntilAsync(() => Task.FromResult(wanted()), () => Task.FromResult(what));

    public async Task UntilAsync(Func<Task<bool>> wanted, Func<Task<string>> what)
    {
        var clock = Stopwatch.StartNew();
        using var rest = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (!await wanted())
        {
            if (clock.Elapsed > Patience)
                Assert.Fail($"not within {Patience.TotalSeconds:0} s: {await what()}\n{Log}");
            await rest.WaitForNextTickAsync();
        }
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        if (_agent is not null)
            await KillAgentAsync();
        _pins.Dispose();
        _node.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    private string NodeManifest()
    {
        var ranges = _podRanges.Split(',');
        var routers = ranges.Select(range => Mesh.Agent.Ipam.AddressPool.RouterOf(Mesh.Model.IpPrefix.Parse(range)))
            .Select(router => string.Create(CultureInfo.InvariantCulture, $", {{type: CiliumInternalIP, ip: \"{router}\"}}"));
        return $$"""
            apiVersion: cilium.io/v2
            kind: CiliumNode
            metadata: {name: node}
            spec:
              addresses: [{type: InternalIP, ip: 172.30.40.1}{{string.Concat(routers)}}]
              ipam: {podCIDRs: [{{string.Join(", ", ranges.Select(range => $"\"{range}\""))}}]}
            """;
    }
}

/// <summary>One node for all tests of a class, each of which leaves nothing behind.</summary>
public sealed class SharedNode : IAsyncLifetime
{
    public CniNode Node { get; private set; } = null!;

    public async ValueTask InitializeAsync() => Node = await CniNode.StartAsync();

    public ValueTask DisposeAsync() => Node is null ? default : Node.DisposeAsync();
}

/// <summary>What the plugin answered.</summary>
public sealed record CniAnswer(int ExitCode, string Output, string Errors)
{
    public JsonElement Json => JsonDocument.Parse(Output).RootElement;

    /// <summary>Of an error.</summary>
    public int Code => ExitCode == 0 ? 0 : Json.GetProperty("code").GetInt32();

    public string Message => Json.GetProperty("msg").GetString()!;

    public override string ToString() => $"exit code {ExitCode}: {Output} {Errors}";

    /// <summary>The pod's addresses, without lengths.</summary>
    public IReadOnlyList<string> Addresses =>
        [.. Json.GetProperty("ips").EnumerateArray().Select(ip => ip.GetProperty("address").GetString()!.Split('/')[0])];
}
