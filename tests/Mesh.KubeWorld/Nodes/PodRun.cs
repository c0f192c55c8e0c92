using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeWorld.Controllers;
using Mesh.TestKit;

namespace Mesh.KubeWorld.Nodes;

/// <summary>
/// One pod on a node, from its binding to its end: volumes, network, init containers one after the other, containers with restarts and probes, and
/// its status all the while. A task of its own.
/// </summary>
internal sealed class PodRun(Node node, KubeObjects objects, ClusterFacts facts, JsonObject pod) : IAsyncDisposable
{
    private static readonly TimeSpan Turn = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan BackOffMax = TimeSpan.FromSeconds(10);

    private readonly string _path = $"/api/v1/namespaces/{pod.Space()}/pods/{pod.Name()}";
    private readonly string _uid = pod.Uid();
    private readonly JsonObject _spec = pod.Obj("spec")!;
    private readonly Dictionary<string, Life> _lives = [];
    private readonly CancellationTokenSource _stop = new();
    private Volumes? _volumes;
    private Sandbox? _sandbox;
    private Task _task = Task.CompletedTask;

    /// <summary>A container's runs so far.</summary>
    private sealed class Life
    {
        public Container? Now { get; set; }

        public JsonObject? Last { get; set; }

        public int Restarts { get; set; }

        public DateTimeOffset NotBefore { get; set; }

        public bool Started { get; set; }

        public bool Ready { get; set; }

        public int Misses { get; set; }

        public DateTimeOffset NextProbe { get; set; }

        public JsonObject? Waiting { get; set; }
    }

    public string Uid => _uid;

    public bool Done { get; private set; }

    public void Start() => _task = Task.Run(() => RunAsync(_stop.Token));

    /// <summary>The running container of that name; null when it does not run.</summary>
    public Container? Running(string name) =>
        _lives.TryGetValue(name, out var life) && life.Now is { ExitCode: null } container ? container : null;

    public string LogOf(string container) => $"{node.Directory}/var/log/{_uid}-{container}.log";

    public string? Address => _sandbox?.Addresses is [var first, ..] ? first : null;

    public string NetworkPath => _sandbox?.NetworkPath ?? node.NetworkPath;

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _task;
        foreach (var life in _lives.Values)
            life.Now?.Dispose();
        if (!Done)
            _sandbox?.Remove();
        _stop.Dispose();
    }

    private async Task RunAsync(CancellationToken stop)
    {
        try
        {
            using var tick = new PeriodicTimer(Turn);
            _volumes = new Volumes(node, objects.Api, pod, facts.Token(pod.Space()));
            while (await PrepareAsync(stop) is { } fault)
            {
                await TellAsync("Pending", fault.Reason, stop);
                await objects.EventAsync(pod, "Pod", "Warning", fault.Event, fault.Message, "kubelet", stop);
                if (Leaving())
                    break;
                for (var i = 0; i < 5 && !Leaving(); i++)
                    await tick.WaitForNextTickAsync(stop);
            }
            while (!Leaving() && !Step())
            {
                _volumes.Follow();
                await ProbeAsync(stop);
                await TellAsync(null, null, stop);
                await tick.WaitForNextTickAsync(stop);
            }
            await TellAsync(null, null, stop);
            while (!Leaving())
                await tick.WaitForNextTickAsync(stop);
            await EndAsync(stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // The node is being switched off.
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            facts.Report($"{node.Name}: pod {pod.Space()}/{pod.Name()}: {e}");
        }
    }

    private bool Leaving() => objects.Api.Find("pods", pod.Space(), pod.Name()) is not { } now || now.Uid() != _uid || now.Deleting();

    private Task<(string Reason, string Event, string Message)?> PrepareAsync(CancellationToken stop) => Task.Run<(string, string, string)?>(() =>
    {
        if (_volumes!.Prepare() is { } volume)
            return ("ContainerCreating", "FailedMount", volume);
        if (_spec.Bool("hostNetwork") == true)
        {
            _sandbox ??= Sandbox.OfHost(node, pod);
            return null;
        }
        try
        {
            _sandbox ??= Sandbox.Create(node, Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(32)), pod);
            return null;
        }
        catch (CniException e)
        {
            return ("ContainerCreating", "FailedCreatePodSandBox", $"Failed to create pod sandbox: {e.Message}");
        }
    }, stop);

    /// <summary>Looks after every container once.</summary>
    /// <returns>Whether the pod has come to its own end.</returns>
    private bool Step()
    {
        var restart = _spec.Str("restartPolicy") ?? "Always";
        foreach (var container in _spec.Arr("initContainers").Objects())
        {
            var life = LifeOf(container);
            Collect(container, life);
            if (life.Last.Num("exitCode") == 0)
                continue;
            if (life.Last is not null && life.Now is null && restart == "Never")
                return true;
            Launch(container, life);
            return false;
        }
        var ended = true;
        foreach (var container in _spec.Arr("containers").Objects())
        {
            var life = LifeOf(container);
            Collect(container, life);
            var again = life.Last is null || restart == "Always" || (restart == "OnFailure" && life.Last.Num("exitCode") != 0);
            if (life.Now is null && again)
                Launch(container, life);
            ended &= life.Now is null && !again;
        }
        return ended;
    }

    private Life LifeOf(JsonObject container)
    {
        var name = container.Str("name")!;
        if (!_lives.TryGetValue(name, out var life))
            _lives[name] = life = new Life();
        return life;
    }

    private static void Collect(JsonObject container, Life life)
    {
        if (life.Now is not { ExitCode: { } code } ended)
            return;
        var message = "";
        if (code != 0 && container.Str("terminationMessagePolicy") == "FallbackToLogsOnError")
            message = string.Join('\n', File.Exists(ended.Log) ? File.ReadLines(ended.Log).TakeLast(5) : []);
        life.Last = new JsonObject
        {
            ["exitCode"] = code,
            ["reason"] = code == 0 ? "Completed" : "Error",
            ["message"] = message,
            ["startedAt"] = Time(ended.Began),
            ["finishedAt"] = Time(ended.Finished ?? DateTimeOffset.UtcNow),
        };
        ended.Dispose();
        (life.Now, life.Started, life.Ready, life.Misses) = (null, false, false, 0);
        if (code == 0 && life.Restarts == 0)
            return;
        var wait = TimeSpan.FromSeconds(Math.Min(BackOffMax.TotalSeconds, 0.5 * Math.Pow(2, life.Restarts)));
        life.NotBefore = DateTimeOffset.UtcNow + wait;
        life.Waiting = new JsonObject
        {
            ["reason"] = "CrashLoopBackOff",
            ["message"] = $"back-off {wait.TotalSeconds}s restarting failed container={container.Str("name")}",
        };
    }

    private void Launch(JsonObject container, Life life)
    {
        if (life.Now is not null || DateTimeOffset.UtcNow < life.NotBefore)
            return;
        if (life.Last is not null)
            life.Restarts++;
        IReadOnlyList<string> command = [.. Words(container, "command"), .. Words(container, "args")];
        if (container.Arr("command") is null)
            command = [.. Images.EntryPoint(container.Str("image")!), .. Words(container, "args")];
        var environment = new PodEnvironment(objects.Api, pod, node, facts, Address ?? "").Of(container);
        command = [.. command.Select(word => PodEnvironment.Expand(word, environment))];
        life.Waiting = null;
        life.Now = new Container(node, _sandbox!.NetworkPath, container, _spec.Obj("securityContext"), command, environment,
            [.. _volumes!.Mounts(container)], ClusterFacts.Files(pod, Address ?? "", node.Address), LogOf(container.Str("name")!));
    }

    private static IReadOnlyList<string> Words(JsonObject container, string key) => [.. container.Arr(key)?.Select(word => $"{word}") ?? []];

    private async Task ProbeAsync(CancellationToken stop)
    {
        foreach (var container in _spec.Arr("containers").Objects())
        {
            var life = LifeOf(container);
            if (life.Now is not { ExitCode: null } running || DateTimeOffset.UtcNow < life.NextProbe)
                continue;
            var starting = !life.Started && container.Obj("startupProbe") is not null;
            var probe = starting ? container.Obj("startupProbe") : container.Obj("readinessProbe");
            if (probe is null)
            {
                (life.Started, life.Ready) = (true, true);
                continue;
            }
            // Sooner than it says: a test has less patience than a cluster.
            life.NextProbe = DateTimeOffset.UtcNow + TimeSpan.FromMilliseconds(life.Ready ? 2000 : 300);
            var good = await Task.Run(() => Holds(running, container, probe), stop);
            life.Misses = good ? 0 : life.Misses + 1;
            if (starting)
                life.Started = good;
            else
                (life.Started, life.Ready) = (true, good || (life.Ready && life.Misses < (probe.Num("failureThreshold") ?? 3)));
        }
    }

    private bool Holds(Container running, JsonObject container, JsonObject probe)
    {
        IReadOnlyList<string> words;
        if (probe.Obj("exec") is { } exec)
        {
            words = running.Enter(Words(exec, "command"));
        }
        else
        {
            var target = probe.Obj("httpGet") ?? probe.Obj("tcpSocket") ?? probe.Obj("grpc")!;
            var named = container.Arr("ports").Objects().FirstOrDefault(port => port.Str("name") == target.Str("port"));
            var port = target.Num("port") ?? named.Num("containerPort");
            var host = target.Str("host") ?? Address;
            words = ["nsenter", $"--target={node.Holder}", "--net", .. probe.Obj("httpGet") is { } http
                ? new[] { "curl", "--silent", "--fail", "--insecure", "--max-time", "3", "--output", "/dev/null",
                    $"{(http.Str("scheme") ?? "HTTP").ToLowerInvariant()}://{host}:{port}{http.Str("path") ?? "/"}" }
                : ["nc", "-z", "-w", "2", host!, $"{port}"]];
        }
        var start = new ProcessStartInfo(words[0], words.Skip(1)) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment.Clear();
        start.Environment["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin";
        using var process = ChildThread.Start(start);
        var error = process.StandardError.ReadToEndAsync();
        process.StandardOutput.ReadToEnd();
        _ = error.Result;
        process.WaitForExit();
        return process.ExitCode == 0;
    }

    private async Task TellAsync(string? phase, string? waiting, CancellationToken stop)
    {
        if (objects.Api.Find("pods", pod.Space(), pod.Name()) is not { } now || now.Uid() != _uid)
            return;
        var containers = States("containers", waiting, out var ready, out var begun);
        var inits = States("initContainers", waiting, out _, out _);
        var initialized = _spec.Arr("initContainers").Objects().All(one => LifeOf(one).Last.Num("exitCode") == 0);
        if (phase is null)
        {
            var ends = _spec.Arr("containers").Objects().Select(LifeOf).ToList();
            var failedInit = _spec.Arr("initContainers").Objects().Select(LifeOf)
                .Any(life => life is { Now: null, Last: not null } && life.Last.Num("exitCode") != 0);
            var finished = (_spec.Str("restartPolicy") ?? "Always") != "Always" && ends.All(life => life is { Now: null, Last: not null });
            phase = finished ? ends.All(life => life.Last.Num("exitCode") == 0) ? "Succeeded" : "Failed"
                : failedInit && _spec.Str("restartPolicy") == "Never" ? "Failed" : begun ? "Running" : "Pending";
        }
        var status = new JsonObject
        {
            ["phase"] = phase,
            ["hostIP"] = node.Address,
            ["containerStatuses"] = containers,
            ["initContainerStatuses"] = inits.Count > 0 ? inits : null,
            ["conditions"] = new JsonArray(
                Condition("PodScheduled", true), Condition("Initialized", initialized),
                Condition("ContainersReady", ready && phase == "Running"), Condition("Ready", ready && phase == "Running")),
        };
        if (_sandbox?.Addresses is { Count: > 0 } addresses)
        {
            status["podIP"] = addresses[0];
            status["podIPs"] = new JsonArray([.. addresses.Select(ip => (JsonNode)new JsonObject { ["ip"] = ip })]);
        }
        await objects.SetStatusAsync(_path, now, status, stop);
    }

    private JsonArray States(string list, string? waiting, out bool ready, out bool begun)
    {
        var states = new JsonArray();
        (ready, begun) = (true, false);
        foreach (var container in _spec.Arr(list).Objects())
        {
            var life = LifeOf(container);
            var state = life.Now is { } now ? new JsonObject { ["running"] = new JsonObject { ["startedAt"] = Time(now.Began) } }
                : life.Last is not null && life.Waiting is null ? new JsonObject { ["terminated"] = life.Last.DeepClone() }
                : new JsonObject { ["waiting"] = life.Waiting?.DeepClone() ?? new JsonObject { ["reason"] = waiting ?? "PodInitializing" } };
            ready &= life.Ready && life.Now is not null;
            begun |= life.Now is not null || life.Last is not null;
            var one = new JsonObject
            {
                ["name"] = container.Str("name"),
                ["image"] = container.Str("image"),
                ["imageID"] = container.Str("image"),
                ["ready"] = list == "containers" ? life.Ready && life.Now is not null : life.Last.Num("exitCode") == 0,
                ["started"] = life.Now is not null && (life.Started || container.Obj("startupProbe") is null),
                ["restartCount"] = life.Restarts,
                ["state"] = state,
            };
            if (life.Last is not null && (life.Now is not null || life.Waiting is not null))
                one["lastState"] = new JsonObject { ["terminated"] = life.Last.DeepClone() };
            states.Add((JsonNode)one);
        }
        return states;
    }

    private async Task EndAsync(CancellationToken stop)
    {
        var running = _lives.Values.Select(life => life.Now).OfType<Container>().Where(container => container.ExitCode is null).ToList();
        foreach (var container in running)
            container.Signal("TERM");
        using var grace = CancellationTokenSource.CreateLinkedTokenSource(stop);
        grace.CancelAfter(TimeSpan.FromSeconds(Math.Min(5, _spec.Num("terminationGracePeriodSeconds") ?? 30)));
        foreach (var container in running)
        {
            try
            {
                await container.EndedAsync(grace.Token);
            }
            catch (OperationCanceledException) when (!stop.IsCancellationRequested)
            {
                // Its time is over; killed below.
            }
        }
        foreach (var life in _lives.Values)
            life.Now?.Dispose();
        if (await Task.Run(() => _sandbox?.Remove(), stop) is { } fault)
            facts.Report($"{node.Name}: DEL of pod {pod.Space()}/{pod.Name()}: {fault}");
        _volumes?.Remove();
        Done = true;
        if (objects.Api.Find("pods", pod.Space(), pod.Name()) is { } left && left.Uid() == _uid)
            await objects.DeleteAsync(_path, new JsonObject { ["gracePeriodSeconds"] = 0 }, stop);
    }

    private static JsonObject Condition(string type, bool holds) => new() { ["type"] = type, ["status"] = holds ? "True" : "False" };

    private static string Time(DateTimeOffset time) => time.ToString("yyyy-MM-ddTHH:mm:ssZ", CultureInfo.InvariantCulture);
}
