using System.Text.Json.Nodes;
using Mesh.Install.Applying;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Preflight;

/// <summary>Looks at every node before anything is changed there: <see cref="NodeProbe"/> in a short-lived pod.</summary>
public static class ClusterPreflight
{
    /// <summary>Linux nodes that the DaemonSet would run on.</summary>
    public static IReadOnlyList<string> Nodes(IEnumerable<JsonObject> nodes, Map values)
    {
        var wanted = (Map)values.At("nodeSelector")!;
        return [.. nodes.Where(node => wanted.All(label => (string?)node["metadata"]?["labels"]?[label.Key] == (string?)label.Value))
            .Select(node => (string)node["metadata"]!["name"]!).Order(StringComparer.Ordinal)];
    }

    public static async Task<IReadOnlyList<NodeVerdict>> RunAsync(KubeClient client, string ns, IReadOnlyList<string> nodes, Map values,
        Narrator narrator, WaitOptions options, string appVersion, CancellationToken cancellation)
    {
        var errand = new Errand("preflight", ImageOf(values, appVersion), (string)values.At("image.pullPolicy")!, Command(values),
            // Load the programs; mount a BPF file system among mounts of its own. NET_ADMIN and PERFMON are what some of the programs need.
            ["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN", "SYS_RESOURCE"], new Dictionary<string, string>());
        var results = await new NodeErrands(client, ns, narrator, options).RunAsync(errand, nodes, cancellation);
        return [.. results.Select(Verdict)];
    }

    /// <summary>What the pod of a node runs.</summary>
    public static IReadOnlyList<string> Command(Map values)
    {
        var port = (long)values.At("tunnelPort")! is var given && given == 0 ? 8472 : given;
        return
        [
            "/usr/bin/mesh", "preflight", "node", "-o", "json", "--host-root=/host", $"--tunnel-port={port}", $"--bpf-root={values.At("bpf.root")}",
            $"--mounts-bpf={Tree.Print(values.At("bpf.autoMount.enabled"))}", $"--cgroup-root={values.At("cgroup.hostRoot")}",
            $"--cni-conf-path={(values.At("cni.install") is true ? values.At("cni.confPath") : NodeQuestions.None)}",
            $"--cni-exclusive={Tree.Print(values.At("cni.exclusive"))}",
            $"--cni-chained-plugin={(values.At("cni.chainingMode") is "portmap" ? $"{values.At("cni.binPath")}/portmap" : NodeQuestions.None)}",
            $"--replaces-kube-proxy={Tree.Print(values.At("kubeProxyReplacement"))}",
        ];
    }

    public static string ImageOf(Map values, string appVersion) => values.At("image.override") is string { Length: > 0 } whole
        ? whole
        : $"{values.At("image.repository")}:{(values.At("image.tag") is string { Length: > 0 } tag ? tag : appVersion)}";

    private static NodeVerdict Verdict(ErrandResult result)
    {
        if (result.Output is not null)
        {
            try
            {
                return new NodeVerdict(result.Node, NodeReport.Parse(result.Output));
            }
            catch (InstallException e)
            {
                return new NodeVerdict(result.Node, null, new NodeCheck("preflight", CheckResult.Fault, e.Message, "use an image of this version"));
            }
        }
        var trouble = result.Trouble!;
        var mend = trouble.State.Contains("Image", StringComparison.Ordinal)
            ? "make the image available to the node: image.repository, image.tag, imagePullSecrets; on kind: `kind load docker-image`"
            : trouble.IsFault
                ? "see the node's kubelet and container runtime"
                : "see whether the node answers: kubectl describe node " + result.Node;
        var found = $"{trouble.State}{(trouble.Cause.Length > 0 ? $": {trouble.Cause}" : "")}";
        return new NodeVerdict(result.Node, null, new NodeCheck("preflight", CheckResult.Fault, $"could not be done: {found}", mend));
    }
}
