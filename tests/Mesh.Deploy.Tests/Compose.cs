using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using Mesh.TestKit;
using YamlDotNet.RepresentationModel;

namespace Mesh.Deploy.Tests;

/// <summary>
/// Runs a compose file without Docker: a network namespace for each container, joined by a bridge in a namespace of its own; a mount
/// namespace with the volumes; commands, order and restarts as the file says. Ends with everything it began.
/// </summary>
internal sealed class Compose : IAsyncDisposable
{
    private const int RestartsMax = 60;

    private readonly Dictionary<string, Service> _services = [];
    private readonly Dictionary<string, NetworkNamespace> _networks = [];
    private readonly ConcurrentDictionary<string, Running> _running = [];
    private readonly NetworkNamespace _wan = new();
    private readonly string _root = Directory.CreateTempSubdirectory("mesh-compose-").FullName;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Task> _tasks = [];

    private sealed record Service(
        string Name, IReadOnlyList<string> Command, string? Address, string? NetworkOf, IReadOnlyList<(string From, string To)> Volumes,
        IReadOnlyDictionary<string, string> After, IReadOnlyDictionary<string, string> Sysctls, IReadOnlyDictionary<string, string> Environment,
        bool Restarts);

    private sealed record Running(Process? Process, int? ExitCode, bool Started);

    /// <param name="config">What `docker-compose config` prints.</param>
    public Compose(string config)
    {
        var yaml = new YamlStream();
        yaml.Load(new StringReader(config));
        var services = (YamlMappingNode)yaml.Documents[0].RootNode["services"];
        foreach (var (name, body) in services.Children)
            _services.Add($"{name}", Read($"{name}", (YamlMappingNode)body));
    }

    public IReadOnlyCollection<string> Services => _services.Keys;

    /// <summary>Starts all services but those.</summary>
    public void Up(params string[] without)
    {
        _wan.Shell("sh", "-ec", "ip link set lo up; ip link add br0 type bridge; ip link set br0 up");
        foreach (var service in _services.Values.Where(service => service.NetworkOf is null))
            _networks.Add(service.Name, Network(service));
        foreach (var service in _services.Values.Where(service => !without.Contains(service.Name)))
            Start(service.Name);
    }

    public void Start(string name) => _tasks.Add(Task.Run(() => KeepAsync(_services[name], _stop.Token)));

    /// <summary>Waits for a service to end well.</summary>
    /// <exception cref="TimeoutException">It has not; with what it said.</exception>
    public Task CompletedAsync(string name, TimeSpan patience) =>
        UntilAsync(() => _running.TryGetValue(name, out var running) && running.ExitCode == 0, patience, () => $"{name}: {Log(name)}");

    /// <summary>Runs a command in a running container, as `docker compose exec` does. Its output; null when it failed.</summary>
    public string? Exec(string name, params string[] command)
    {
        if (!_running.TryGetValue(name, out var running) || running.Process is not { HasExited: false } process)
            return null;
        var start = new ProcessStartInfo("nsenter", [$"--target={process.Id}", "--mount", "--net", "--", .. command])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        SetEnvironment(start, _services[name]);
        using var child = ChildThread.Start(start);
        var errors = child.StandardError.ReadToEndAsync();
        var output = child.StandardOutput.ReadToEnd();
        child.WaitForExit();
        _ = errors.Result;
        return child.ExitCode == 0 ? output : null;
    }

    public string Log(string name) => File.Exists($"{_root}/{name}.log") ? File.ReadAllText($"{_root}/{name}.log") : "nothing said";

    public static async Task UntilAsync(Func<bool> holds, TimeSpan patience, Func<string> otherwise)
    {
        var waited = Stopwatch.StartNew();
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
        while (!holds())
        {
            if (waited.Elapsed > patience)
                throw new TimeoutException(otherwise());
            await tick.WaitForNextTickAsync();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        // Pods before the nodes whose network they use: their agents are still there to be told.
        foreach (var pods in new[] { true, false })
        {
            var ending = _running.Where(pair => _services[pair.Key].NetworkOf is not null == pods)
                .Select(pair => pair.Value.Process).OfType<Process>().Where(process => !process.HasExited).ToList();
            foreach (var process in ending)
                ChildThread.Run("kill", "-TERM", process.Id.ToString(CultureInfo.InvariantCulture));
            foreach (var process in ending)
            {
                using var end = new CancellationTokenSource(TimeSpan.FromSeconds(15));
                try
                {
                    await process.WaitForExitAsync(end.Token);
                }
                catch (OperationCanceledException)
                {
                    process.Kill(entireProcessTree: true);
                    await process.WaitForExitAsync();
                }
            }
        }
        await Task.WhenAll(_tasks);
        foreach (var network in _networks.Values.Append(_wan))
            network.Dispose();
        _stop.Dispose();
        Directory.Delete(_root, recursive: true);
    }

    private static Service Read(string name, YamlMappingNode body)
    {
        IReadOnlyList<string> Words(string key) =>
            body.Children.TryGetValue(key, out var node) && node is YamlSequenceNode words ? [.. words.Select(word => $"{word}".Replace("$$", "$"))] : [];
        string? Text(string key) => body.Children.TryGetValue(key, out var node) ? $"{node}" : null;
        Dictionary<string, string> Map(string key, Func<YamlNode, string> value) =>
            body.Children.TryGetValue(key, out var node) && node is YamlMappingNode map
                ? map.ToDictionary(pair => $"{pair.Key}", pair => value(pair.Value)) : [];
        var mode = Text("network_mode");
        return new Service(
            name, [.. Words("entrypoint"), .. Words("command")],
            Map("networks", network => $"{network["ipv4_address"]}").Values.FirstOrDefault(),
            mode?.StartsWith("service:", StringComparison.Ordinal) == true ? mode["service:".Length..] : null,
            [.. Words("volumes").Select(volume => volume.Split(':')).Select(parts => (parts[0], parts[1]))],
            Map("depends_on", on => $"{on["condition"]}"), Map("sysctls", value => $"{value}"),
            Map("environment", value => $"{value}"), Text("restart") == "on-failure");
    }

    private NetworkNamespace Network(Service service)
    {
        var network = new NetworkNamespace();
        network.Shell("ip", "link", "set", "lo", "up");
        foreach (var (key, value) in service.Sysctls)
            network.Shell("sh", "-ec", $"echo {value} > /proc/sys/{key.Replace('.', '/')}");
        if (service.Address is null)
            return network;
        var port = $"p{_networks.Count}";
        _wan.Shell("ip", "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", network.Name);
        _wan.Shell("ip", "link", "set", port, "master", "br0", "up");
        network.Shell("sh", "-ec", $"ip addr add {service.Address}/16 dev eth0; ip link set eth0 up");
        return network;
    }

    private async Task KeepAsync(Service service, CancellationToken stop)
    {
        try
        {
            using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
            while (!service.After.All(after => _running.TryGetValue(after.Key, out var other)
                && (after.Value == "service_completed_successfully" ? other.ExitCode == 0 : other.Started)))
                await tick.WaitForNextTickAsync(stop);
            for (var starts = 0; starts <= RestartsMax && !stop.IsCancellationRequested; starts++)
            {
                var process = ChildThread.Start(Container(service));
                _running[service.Name] = new Running(process, null, true);
                await process.WaitForExitAsync(stop);
                _running[service.Name] = new Running(null, process.ExitCode, true);
                if (process.ExitCode == 0 || !service.Restarts)
                    return;
                await tick.WaitForNextTickAsync(stop);
            }
        }
        catch (OperationCanceledException)
        {
            // Taken down.
        }
    }

    /// <summary>The container's process becomes the service's command: its number is the command's.</summary>
    private ProcessStartInfo Container(Service service)
    {
        var mounts = string.Concat(service.Volumes.Select(volume =>
        {
            var from = volume.From.StartsWith('/') ? volume.From : Directory.CreateDirectory($"{_root}/volume-{volume.From}").FullName;
            return $"mkdir -p '{volume.To}'; mount --bind '{from}' '{volume.To}'; ";
        }));
        // A container has its own /run and /var/lib, and no bpffs until somebody mounts one.
        var script = "mount -t tmpfs tmpfs /var/lib; mount -t tmpfs tmpfs /run; mkdir -p /run/netns; "
            + $"while umount /sys/fs/bpf 2>/dev/null; do :; done; {mounts}exec \"$@\" >>'{_root}/{service.Name}.log' 2>&1";
        var network = _networks[service.NetworkOf ?? service.Name].Name;
        var start = new ProcessStartInfo("nsenter",
            [$"--net=/run/netns/{network}", "unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", .. service.Command]);
        SetEnvironment(start, service);
        return start;
    }

    private static void SetEnvironment(ProcessStartInfo start, Service service)
    {
        start.Environment["PATH"] = $"{Checkout.Programs}:{Environment.GetEnvironmentVariable("PATH")}";
        foreach (var (name, value) in service.Environment)
            start.Environment[name] = value;
    }
}
