using System.CommandLine;
using Mesh.Cli.Text;
using Mesh.Install;
using Mesh.Install.Applying;
using Mesh.Install.Text;
using Mesh.Install.Values;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Commands.Install;

/// <summary>The flags that `install`, `upgrade`, `uninstall`, `config` and `preflight` share: which cluster, which release, which values.</summary>
internal sealed class InstallOptions
{
    private readonly Option<string?> _kubeconfig = new("--kubeconfig") { Description = "File with the cluster's address; as kubectl finds it by default" };
    private readonly Option<string?> _context = new("--context") { Description = "Context of the kubeconfig; the current one by default" };

    private readonly Option<string> _namespace = new("--namespace", "-n")
    {
        Description = "Namespace of the mesh",
        DefaultValueFactory = _ => Environment.GetEnvironmentVariable("CILIUM_NAMESPACE") is { Length: > 0 } ns ? ns : "kube-system",
    };

    private readonly Option<string> _release = new("--helm-release-name") { Description = "Name of the release", DefaultValueFactory = _ => "cilium" };

    private readonly Option<string[]> _files = new("--values", "-f") { Description = "File of values; may be repeated", DefaultValueFactory = _ => [] };
    private readonly Option<string[]> _sets = new("--set") { Description = "NAME=VALUE[,…]; may be repeated", DefaultValueFactory = _ => [] };
    private readonly Option<string[]> _strings = new("--set-string") { Description = "As --set, always text", DefaultValueFactory = _ => [] };
    private readonly Option<string> _wait = new("--wait-duration") { Description = "How long everything may take", DefaultValueFactory = _ => "5m" };

    public Option<bool> DryRun { get; } = new("--dry-run") { Description = "Print the objects and change nothing" };

    public Option<bool> SkipPreflight { get; } = new("--skip-preflight") { Description = "Do not look at the nodes first" };

    public Option<bool> NoRollback { get; } = new("--no-rollback") { Description = "Leave what failed as it is" };

    public void AddCluster(Command command)
    {
        foreach (var option in new Option[] { _kubeconfig, _context, _namespace, _release })
            command.Options.Add(option);
    }

    public void AddValues(Command command)
    {
        foreach (var option in new Option[] { _files, _sets, _strings })
            command.Options.Add(option);
    }

    public void AddChange(Command command)
    {
        foreach (var option in new Option[] { DryRun, SkipPreflight, NoRollback, _wait })
            command.Options.Add(option);
    }

    public void AddWait(Command command) => command.Options.Add(_wait);

    public KubeClient Connect(ParseResult parsed) => new(KubeConfiguration.Find(parsed.GetValue(_kubeconfig), parsed.GetValue(_context)));

    /// <exception cref="InstallException">Kubernetes or Helm would take no such name.</exception>
    public InstallTarget Target(ParseResult parsed) => InstallTarget.Named(parsed.GetValue(_namespace)!, parsed.GetValue(_release)!);

    public Map Values(ParseResult parsed) =>
        ValueInput.Read(parsed.GetValue(_files) ?? [], parsed.GetValue(_sets) ?? [], parsed.GetValue(_strings) ?? []);

    public WaitOptions Wait(ParseResult parsed)
    {
        var text = parsed.GetValue(_wait) ?? "";
        return GoText.ParseDuration(text) is { } total && total > TimeSpan.Zero
            ? new WaitOptions { Total = total }
            : throw new InstallException($"--wait-duration '{text}': must be a duration such as 90s, 5m or 1m30s");
    }

    /// <summary>Definitions of our custom resources into the cluster.</summary>
    public static async Task<IReadOnlyList<DefinitionResult>> DefineAsync(KubeClient client, CancellationToken cancellation) =>
        [.. (await CrdInstaller.InstallAsync(client, TimeProvider.System, cancellation))
            .Select(result => new DefinitionResult(result.Name, result.Outcome == CrdOutcome.Created, result.Note))];
}
