using System.Diagnostics;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.TestKit;

namespace Mesh.KubeWorld.Nodes;

/// <summary>A pod's network: the node's own, or a namespace that the node's CNI plugins wire, as the conflist in /etc/cni/net.d says.</summary>
internal sealed class Sandbox
{
    private readonly Node _node;
    private readonly string _id;
    private readonly IReadOnlyList<JsonObject> _plugins;
    private readonly JsonObject _pod;

    private Sandbox(Node node, string id, string path, JsonObject pod, IReadOnlyList<JsonObject> plugins)
    {
        (_node, _id, NetworkPath, _pod, _plugins) = (node, id, path, pod, plugins);
    }

    /// <summary>Path of the network namespace.</summary>
    public string NetworkPath { get; }

    public IReadOnlyList<string> Addresses { get; private set; } = [];

    public static Sandbox OfHost(Node node, JsonObject pod) => new(node, "", node.NetworkPath, pod, []) { Addresses = [node.Address] };

    /// <exception cref="CniException">There is no configuration, or a plugin refused; with its own words.</exception>
    public static Sandbox Create(Node node, string id, JsonObject pod)
    {
        var conflist = Conflist(node) ?? throw new CniException("cni config uninitialized: no networks found in /etc/cni/net.d");
        // Where runtimes keep them; a namespace mounted below the node's tree is seen by agents through HostToContainer.
        var path = $"{node.Directory}/var/run/netns/cni-{id[..12]}";
        Run(["nsenter", $"--target={node.Holder}", "--mount", "sh", "-ec",
            "touch \"$1\"; unshare --net=\"$1\" ip link set lo up", "sh", path], [], null);
        var sandbox = new Sandbox(node, id, path, pod,
            [.. conflist.Arr("plugins").Objects().Select(plugin => With(plugin, conflist))]);
        try
        {
            JsonObject? result = null;
            foreach (var plugin in sandbox._plugins)
                result = sandbox.Call("ADD", plugin, result);
            sandbox.Addresses = [.. result.Arr("ips").Objects().Select(one => one.Str("address")!.Split('/')[0])];
            return sandbox;
        }
        catch
        {
            sandbox.Remove();
            throw;
        }
    }

    /// <summary>DEL of every plugin, then the namespace. Nobody's failure keeps the others from being asked.</summary>
    /// <returns>What failed; null for nothing.</returns>
    public string? Remove()
    {
        if (_plugins.Count == 0)
            return null;
        string? failure = null;
        foreach (var plugin in _plugins.Reverse())
        {
            try
            {
                Call("DEL", plugin, null);
            }
            catch (CniException e)
            {
                failure = e.Message;
            }
        }
        Run(["nsenter", $"--target={_node.Holder}", "--mount", "sh", "-c", "umount \"$1\" 2>/dev/null; rm -f \"$1\"", "sh", NetworkPath], [], null);
        return failure;
    }

    public static bool IsConfigured(Node node) => Conflist(node) is not null;

    private static JsonObject? Conflist(Node node)
    {
        var file = Directory.GetFiles($"{node.Directory}/etc/cni/net.d").Where(path => path.EndsWith(".conflist", StringComparison.Ordinal)
            || path.EndsWith(".conf", StringComparison.Ordinal)).Order(StringComparer.Ordinal).FirstOrDefault();
        if (file is null)
            return null;
        var read = JsonNode.Parse(File.ReadAllText(file)) as JsonObject;
        return read?["plugins"] is not null ? read : read is null ? null : new JsonObject
        {
            ["cniVersion"] = read["cniVersion"]?.DeepClone(),
            ["name"] = read["name"]?.DeepClone(),
            ["plugins"] = new JsonArray(read.DeepClone()),
        };
    }

    private static JsonObject With(JsonObject plugin, JsonObject conflist)
    {
        var one = (JsonObject)plugin.DeepClone();
        one["cniVersion"] = conflist["cniVersion"]?.DeepClone();
        one["name"] = conflist["name"]?.DeepClone();
        return one;
    }

    private JsonObject Call(string command, JsonObject plugin, JsonObject? before)
    {
        var config = (JsonObject)plugin.DeepClone();
        if (before is not null)
            config["prevResult"] = before.DeepClone();
        var meta = _pod.Obj("metadata")!;
        var environment = new Dictionary<string, string>
        {
            ["CNI_COMMAND"] = command,
            ["CNI_CONTAINERID"] = _id,
            ["CNI_NETNS"] = $"/var/run/netns/{Path.GetFileName(NetworkPath)}",
            ["CNI_IFNAME"] = "eth0",
            ["CNI_ARGS"] = $"IgnoreUnknown=1;K8S_POD_NAMESPACE={meta.Str("namespace")};K8S_POD_NAME={meta.Str("name")};"
                + $"K8S_POD_INFRA_CONTAINER_ID={_id};K8S_POD_UID={meta.Str("uid")}",
        };
        // The plugin is the node's own program and sees the node's own /run.
        var plugins = $"{_node.Directory}/opt/cni/bin";
        environment["CNI_PATH"] = plugins;
        var script = $"mount --rbind '{_node.Directory}/var/run' /run; exec '{plugins}/{plugin.Str("type")}'";
        var answer = Run([.. _node.Enter(_node.NetworkPath), "sh", "-ec", script], environment, config.ToJsonString());
        JsonObject? said = null;
        if (answer.Output.TrimStart().StartsWith('{'))
            said = JsonNode.Parse(answer.Output) as JsonObject;
        if (answer.ExitCode != 0)
            throw new CniException($"plugin type=\"{plugin.Str("type")}\" failed ({command.ToLowerInvariant()}): "
                + (said.Str("msg") is { } message ? $"{message} {said.Str("details")}".Trim() : $"exit code {answer.ExitCode}: {answer.Error.Trim()}"));
        return said ?? [];
    }

    private static (int ExitCode, string Output, string Error) Run(IReadOnlyList<string> words, Dictionary<string, string> environment, string? input)
    {
        var start = new ProcessStartInfo(words[0], words.Skip(1))
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var (name, value) in environment)
            start.Environment[name] = value;
        using var process = ChildThread.Start(start);
        try
        {
            if (input is not null)
                process.StandardInput.Write(input);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // It has ended before it read: its exit code and its words say why.
        }
        var error = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, error.Result);
    }
}

internal sealed class CniException(string message) : Exception(message);
