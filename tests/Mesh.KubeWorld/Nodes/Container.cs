using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.TestKit;

namespace Mesh.KubeWorld.Nodes;

/// <summary>
/// One run of a container: a process in the pod's network, with a root of its own (an overlay over this machine's, holding the programs under
/// test as its image), processes of its own (it is the first), the pod's volumes, the environment, user and capabilities that its spec gives.
/// What it says goes to a log file. It ends, with all that it started, when this program does.
/// </summary>
internal sealed class Container : IDisposable
{
    // What container runtimes leave a container that asks for nothing.
    private static readonly string[] Usual =
    [
        "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service", "net_raw", "sys_chroot", "mknod",
        "audit_write", "setfcap",
    ];

    private static readonly TimeSpan BeginsWithin = TimeSpan.FromSeconds(10);

    // Waits for the container's first process, which no longer has its parent's death for its own end once its user changes: setpriv asks again.
    private readonly Process _process;
    private int _first;
    private int _disposed;

    /// <param name="From">A directory or file of this machine.</param>
    /// <param name="Propagation">None, HostToContainer or Bidirectional.</param>
    public sealed record Mount(string From, string To, bool ReadOnly, string Propagation);

    /// <param name="network">Path of the network namespace.</param>
    /// <param name="files">Further files of its root, as /etc/resolv.conf.</param>
    public Container(Node node, string network, JsonObject spec, JsonObject? podSecurity, IReadOnlyList<string> command,
        IReadOnlyDictionary<string, string> environment, IReadOnlyList<Mount> mounts, IReadOnlyDictionary<string, string> files, string log)
    {
        Log = log;
        var security = spec.Obj("securityContext");
        var script = new StringBuilder();
        script.Append(CultureInfo.InvariantCulture, $"exec 2>>'{log}'; ");
        script.Append(CultureInfo.InvariantCulture, $"echo 0 > '{node.Cgroup}/cgroup.procs'; ");
        script.Append(CultureInfo.InvariantCulture, $"c=$(mktemp -d '{node.Directory}/volumes/root.XXXXXX'); ");
        // Not on the node's own tree: an overlay's upper part may not lie below its lower one.
        script.Append("mount -t tmpfs tmpfs $c; mount --make-private $c; mkdir $c/u $c/w $c/r; ");
        script.Append("mount -t overlay overlay -o lowerdir=/,upperdir=$c/u,workdir=$c/w $c/r; r=$c/r; ");
        script.Append("mount --rbind /dev $r/dev; mount -t proc proc $r/proc; mount -t sysfs sysfs $r/sys; mount -t tmpfs tmpfs $r/run; ");
        // An absolute link: followed from outside it would lead out of the container.
        script.Append("rm -rf $r/var/run; mkdir $r/var/run; mount --rbind $r/run $r/var/run; ");
        script.Append("mount -t tmpfs tmpfs $r/tmp; chmod 1777 $r/tmp; ");
        var number = 0;
        foreach (var directory in Programs.Directories)
        {
            script.Append(CultureInfo.InvariantCulture,
                $"mkdir -p $r/opt/mesh/{number} $r/opt/cni/bin; mount --bind '{directory}' $r/opt/mesh/{number}; ");
            script.Append(CultureInfo.InvariantCulture,
                $"for p in mesh cilium mesh-agent mesh-operator clustermesh-apiserver mesh-cni; "
                + $"do if [ -x $r/opt/mesh/{number}/$p ] && [ ! -L $r/usr/bin/$p ]; "
                + $"then ln -s /opt/mesh/{number}/$p $r/usr/bin/$p; fi; done; ");
            number++;
        }
        script.Append("for p in cilium cilium-dbg cilium-health; do ln -sf mesh $r/usr/bin/$p; done; ln -sf /usr/bin/mesh-cni $r/opt/cni/bin/cilium-cni; ");
        foreach (var (path, text) in files)
            script.Append(CultureInfo.InvariantCulture, $"rm -f $r{path}; printf '%b' '{text.Replace("\n", "\\n", StringComparison.Ordinal)}' > $r{path}; ");
        foreach (var mount in mounts)
            script.Append(MountText(mount));
        if (security.Bool("readOnlyRootFilesystem") == true)
            script.Append("mount -o remount,ro $r; ");
        var directoryInside = spec.Str("workingDir") ?? "/";
        var rights = Rights(security, podSecurity, node.Withheld);
        script.Append(CultureInfo.InvariantCulture, $"exec chroot $r env -C '{directoryInside}' {rights} \"$@\" >>'{log}' 2>&1");
        var words = node.Enter(network);
        var start = new ProcessStartInfo(words[0],
            [.. words.Skip(1), "--pid", "--fork", "--kill-child=KILL", "sh", "-ec", script.ToString(), "sh", .. command]);
        start.Environment.Clear();
        start.Environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        foreach (var (name, value) in environment)
            start.Environment[name] = value;
        Directory.CreateDirectory(Path.GetDirectoryName(log)!);
        Began = DateTimeOffset.UtcNow;
        _process = ChildThread.Start(start);
    }

    public string Log { get; }

    public DateTimeOffset Began { get; }

    public DateTimeOffset? Finished { get; private set; }

    /// <summary>Null while it runs.</summary>
    public int? ExitCode
    {
        get
        {
            if (!_process.HasExited)
                return null;
            Finished ??= DateTimeOffset.UtcNow;
            return _process.ExitCode;
        }
    }

    /// <summary>Words that run a command inside: its namespaces and its root.</summary>
    public IReadOnlyList<string> Enter(IReadOnlyList<string> command) =>
        ["nsenter", $"--target={First()}", "--mount", "--net", "--pid", "--root", "--wdns=/", "--", .. command];

    public void Signal(string signal)
    {
        // Signalled 0, everybody around us would be meant.
        if (_process.HasExited || First() is not (> 0 and var first))
            return;
        try
        {
            ChildThread.Run("sh", "-c", "kill -\"$1\" \"$2\"", "sh", signal, first.ToString(CultureInfo.InvariantCulture));
        }
        catch (InvalidOperationException) when (!Directory.Exists($"/proc/{first}"))
        {
            // It ended meanwhile.
        }
    }

    public Task EndedAsync(CancellationToken stop) => _process.WaitForExitAsync(stop);

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 1)
            return;
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
            _process.WaitForExit();
        }
        _process.Dispose();
    }

    /// <summary>The container's process 1, by the number that it has here; 0 when it ended before it was seen.</summary>
    private int First()
    {
        if (_first == 0)
            SpinWait.SpinUntil(() => (_first = Child(_process.Id)) != 0 || _process.HasExited, BeginsWithin);
        return _first;
    }

    private static int Child(int parent)
    {
        try
        {
            return File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{parent}/task/{parent}/children"))
                .Split(' ', StringSplitOptions.RemoveEmptyEntries) is [var first, ..] ? int.Parse(first, CultureInfo.InvariantCulture) : 0;
        }
        catch (IOException)
        {
            return 0;
        }
    }

    private static string MountText(Mount mount)
    {
        var kind = File.Exists(mount.From) ? $"mkdir -p \"$r$(dirname '{mount.To}')\"; touch \"$r{mount.To}\"" : $"mkdir -p \"$r{mount.To}\"";
        // A bind of a shared tree is of its peers: what is mounted below, here or there, shows on both sides.
        var propagation = mount.Propagation switch
        {
            "Bidirectional" => "",
            "HostToContainer" => $"mount --make-rslave \"$r{mount.To}\"; ",
            _ => $"mount --make-rprivate \"$r{mount.To}\"; ",
        };
        var readOnly = mount.ReadOnly ? $"mount -o remount,bind,ro \"$r{mount.To}\"; " : "";
        return $"{kind}; mount --rbind '{mount.From}' \"$r{mount.To}\"; {propagation}{readOnly}";
    }

    /// <summary>The words that give up what the spec does not give.</summary>
    private static string Rights(JsonObject? security, JsonObject? pod, string? withheld)
    {
        var words = new StringBuilder("setpriv --pdeathsig KILL");
        long? user = security.Num("runAsUser") ?? pod.Num("runAsUser");
        long? group = security.Num("runAsGroup") ?? pod.Num("runAsGroup") ?? user;
        if (user is > 0)
            words.Append(CultureInfo.InvariantCulture, $" --reuid {user} --regid {group} --clear-groups");
        if (security.Bool("allowPrivilegeEscalation") == false)
            words.Append(" --no-new-privs");
        if (security.Bool("privileged") != true)
        {
            var dropped = security.Obj("capabilities").Arr("drop")?.Select(one => one!.ToString().ToLowerInvariant()).ToHashSet() ?? [];
            var kept = (dropped.Contains("all") ? [] : Usual.Where(one => !dropped.Contains(one)))
                .Concat(security.Obj("capabilities").Arr("add")?.Select(one => one!.ToString().ToLowerInvariant()) ?? []).Distinct()
                .Where(one => one != withheld);
            words.Append(" --inh-caps=-all --bounding-set=-all").Append(string.Concat(kept.Select(one => $",+{one}")));
        }
        else if (withheld is not null)
        {
            words.Append(CultureInfo.InvariantCulture, $" --inh-caps=-{withheld} --bounding-set=-{withheld}");
        }
        return words.Append(" --").ToString();
    }
}

/// <summary>The programs under test: MESH_BIN (directories, separated by colons), else out/bin.</summary>
internal static class Programs
{
    public static IReadOnlyList<string> Directories { get; } =
        Environment.GetEnvironmentVariable("MESH_BIN") is { Length: > 0 } given ? given.Split(':') : [Built()];

    private static string Built([System.Runtime.CompilerServices.CallerFilePath] string here = "") =>
        Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", "..", "..", "out", "bin"));
}
