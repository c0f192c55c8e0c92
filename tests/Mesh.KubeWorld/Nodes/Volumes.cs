using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld.Nodes;

/// <summary>
/// The volumes of one pod on a node. ConfigMaps, Secrets and tokens are directories whose whole content changes by one rename of the link
/// `..data`, as a kubelet does it; they follow their objects while the pod lives.
/// </summary>
internal sealed class Volumes(Node node, KubeApiServer api, JsonObject pod, Func<string, string> token)
{
    private const string Data = "..data";
    private readonly string _root = $"{node.Directory}/volumes/{pod.Obj("metadata").Str("uid")}";
    private readonly Dictionary<string, byte[]> _tokens = [];
    private int _generation;

    /// <summary>Why a volume cannot be made yet; null when all are there.</summary>
    public string? Prepare()
    {
        foreach (var volume in pod.Obj("spec").Arr("volumes").Objects())
        {
            if (Prepare(volume) is { } fault)
                return $"MountVolume.SetUp failed for volume \"{volume.Str("name")}\" : {fault}";
        }
        return null;
    }

    /// <summary>Writes what has changed of ConfigMaps, Secrets and the like.</summary>
    public void Follow()
    {
        foreach (var volume in pod.Obj("spec").Arr("volumes").Objects().Where(IsFollowed))
            Write(volume);
    }

    public IReadOnlyList<Container.Mount> Mounts(JsonObject container)
    {
        var mounts = new List<Container.Mount>();
        foreach (var mount in container.Arr("volumeMounts").Objects())
        {
            var volume = pod.Obj("spec").Arr("volumes").Objects().First(one => one.Str("name") == mount.Str("name"));
            var from = PathOf(volume);
            if (mount.Str("subPath") is { } sub)
                from = $"{from}/{sub}";
            mounts.Add(new Container.Mount(from, mount.Str("mountPath")!, mount.Bool("readOnly") == true, mount.Str("mountPropagation") ?? "None"));
        }
        return mounts;
    }

    public void Remove()
    {
        if (Directory.Exists(_root))
            Directory.Delete(_root, recursive: true);
    }

    /// <summary>One for the pod's life.</summary>
    private byte[] Token()
    {
        var account = pod.Obj("spec").Str("serviceAccountName") ?? "default";
        if (!_tokens.TryGetValue(account, out var made))
            _tokens[account] = made = Encoding.UTF8.GetBytes(token(account));
        return made;
    }

    private static bool IsFollowed(JsonObject volume) =>
        volume.ContainsKey("configMap") || volume.ContainsKey("secret") || volume.ContainsKey("projected") || volume.ContainsKey("downwardAPI");

    private string PathOf(JsonObject volume) =>
        volume.Obj("hostPath").Str("path") is { } path ? node.HostPath(path) : $"{_root}/{volume.Str("name")}";

    private string? Prepare(JsonObject volume)
    {
        var path = PathOf(volume);
        if (volume.Obj("hostPath") is { } host)
        {
            var type = host.Str("type") ?? "";
            if (type == "DirectoryOrCreate" && !File.Exists(path))
                Directory.CreateDirectory(path);
            if (type is "Directory" or "DirectoryOrCreate" && !Directory.Exists(path))
                return $"hostPath type check failed: {host.Str("path")} is not a directory";
            return Path.Exists(path) ? null : $"{host.Str("path")} does not exist";
        }
        if (IsFollowed(volume))
            return Write(volume);
        Directory.CreateDirectory(path);
        File.SetUnixFileMode(path, (UnixFileMode)0x1FF);
        return null;
    }

    private string? Write(JsonObject volume)
    {
        var files = new SortedDictionary<string, byte[]>(StringComparer.Ordinal);
        var fault = volume.Obj("projected") is { } projected
            ? projected.Arr("sources").Objects().Select(source => Collect(source, files)).FirstOrDefault(one => one is not null)
            : Collect(volume, files);
        if (fault is not null)
            return fault;
        var mode = (volume.Obj("projected") ?? volume.Obj("configMap") ?? volume.Obj("secret") ?? volume.Obj("downwardAPI")).Num("defaultMode") ?? 0x1A4;
        Publish(PathOf(volume), files, (UnixFileMode)mode);
        return null;
    }

    private void Publish(string directory, SortedDictionary<string, byte[]> files, UnixFileMode mode)
    {
        Directory.CreateDirectory(directory);
        var current = $"{directory}/{Data}";
        if (Directory.Exists(current) && Directory.GetFiles(current).Select(Path.GetFileName).Order(StringComparer.Ordinal).SequenceEqual(files.Keys)
            && files.All(file => File.ReadAllBytes($"{current}/{file.Key}").AsSpan().SequenceEqual(file.Value)))
            return;
        var fresh = $"..{++_generation}";
        Directory.CreateDirectory($"{directory}/{fresh}");
        var group = pod.Obj("spec").Obj("securityContext").Num("fsGroup");
        foreach (var (name, content) in files)
        {
            File.WriteAllBytes($"{directory}/{fresh}/{name}", content);
            File.SetUnixFileMode($"{directory}/{fresh}/{name}", mode);
            if (group is not null)
                TestKit.ChildThread.Run("chgrp", $"{group}", $"{directory}/{fresh}/{name}");
        }
        var old = Path.Exists(current) ? new DirectoryInfo(current).LinkTarget : null;
        File.CreateSymbolicLink($"{directory}/..new", fresh);
        // Not File.Move, which looks at what the link leads to.
        TestKit.ChildThread.Run("mv", "--no-target-directory", $"{directory}/..new", current);
        foreach (var name in files.Keys.Where(name => !Path.Exists($"{directory}/{name}")))
            File.CreateSymbolicLink($"{directory}/{name}", $"{Data}/{name}");
        foreach (var link in Directory.GetFileSystemEntries(directory).Where(entry => !Path.GetFileName(entry).StartsWith("..", StringComparison.Ordinal)))
        {
            if (!files.ContainsKey(Path.GetFileName(link)))
                File.Delete(link);
        }
        if (old is not null)
            Directory.Delete($"{directory}/{old}", recursive: true);
    }

    /// <returns>What is missing; null for nothing.</returns>
    private string? Collect(JsonObject source, SortedDictionary<string, byte[]> files)
    {
        if (source.Obj("serviceAccountToken") is { } account)
        {
            files[account.Str("path") ?? "token"] = Token();
            return null;
        }
        foreach (var item in source.Obj("downwardAPI").Arr("items").Objects())
        {
            files[item.Str("path")!] = Encoding.UTF8.GetBytes(item.Obj("fieldRef").Str("fieldPath") switch
            {
                "metadata.namespace" => pod.Obj("metadata").Str("namespace")!,
                "metadata.name" => pod.Obj("metadata").Str("name")!,
                var other => throw new InvalidOperationException($"downwardAPI {other}: not known here"),
            });
        }
        foreach (var (kind, resource) in new[] { ("configMap", "configmaps"), ("secret", "secrets") })
        {
            if (source.Obj(kind) is not { } wanted)
                continue;
            var name = wanted.Str("name") ?? wanted.Str("secretName")!;
            var space = pod.Obj("metadata").Str("namespace")!;
            if (api.Find(resource, space, name) is not { } found)
            {
                if (wanted.Bool("optional") == true)
                    continue;
                return $"{kind.ToLowerInvariant()} \"{name}\" not found";
            }
            var content = new Dictionary<string, byte[]>();
            foreach (var (key, value) in found.Obj("data") ?? [])
                content[key] = kind == "secret" ? Convert.FromBase64String($"{value}") : Encoding.UTF8.GetBytes($"{value}");
            if (wanted.Arr("items") is not { } items)
            {
                foreach (var (key, value) in content)
                    files[key] = value;
                continue;
            }
            foreach (var item in items.Objects())
            {
                if (content.TryGetValue(item.Str("key")!, out var value))
                    files[item.Str("path")!] = value;
                else if (wanted.Bool("optional") != true)
                    return $"references non-existent {kind.ToLowerInvariant()} key: {item.Str("key")}";
            }
        }
        return null;
    }
}
