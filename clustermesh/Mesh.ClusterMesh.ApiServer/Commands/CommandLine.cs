using System.CommandLine;
using Mesh.ClusterMesh.ApiServer.Relaying;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;

namespace Mesh.ClusterMesh.ApiServer.Commands;

/// <summary>The program's words: `clustermesh` runs the API server, `version` says which one. A wrong word or value is one line on
/// stderr and exit code 1, before anything has been touched.</summary>
internal static class CommandLine
{
    /// <param name="environment">Value of an environment variable: CLUSTER_NAME stands for --cluster-name, and so on.</param>
    public static async Task<int> RunAsync(
        string[] args, Func<string, string?> environment, Action<string> log, CancellationToken cancellation)
    {
        var flags = new ServerFlags();
        var serve = new Command("clustermesh", "Publish this cluster's objects in its etcd, where other clusters read them.");
        flags.AddTo(serve);
        var version = new Command("version", "Print the version.");
        var relay = new KvstoremeshCommand();
        var mirror = relay.Build(options => MirrorAsync(options, log, cancellation), Refuse);
        var look = KvstoremeshDbgCommand.Build(Console.Out, Console.Error, TimeProvider.System);
        var root = new RootCommand("The clustermesh API server.") { serve, mirror, look, version };
        var names = args is [KvstoremeshCommand.Word, ..] ? relay.Names.ToList() : [.. flags.Names];
        try
        {
            args = FlagFiles.Expand(args, 1, names.ToHashSet(), log);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return Refuse(e.Message);
        }
        var known = args is ["clustermesh" or KvstoremeshCommand.Word, ..]
            ? [args[0], .. ServerFlags.FromEnvironment(names, args, environment), .. args[1..]]
            : args;
        var parsed = root.Parse(known);
        serve.SetAction(async (result, _) => await ServeAsync(flags.Read(result), log, cancellation));
        version.SetAction(_ => Console.WriteLine($"clustermesh-apiserver {typeof(CommandLine).Assembly.GetName().Version?.ToString(3)}"));
        if (args.Length == 0)
            return Refuse("no command: give clustermesh, kvstoremesh, kvstoremesh-dbg or version");
        if (parsed.UnmatchedTokens.Count > 0)
            return Refuse($"{parsed.UnmatchedTokens[0]}: unknown; {Nearest(parsed.UnmatchedTokens[0], names, args[0])}");
        if (parsed.Errors.Count > 0 && parsed.Action is not System.CommandLine.Help.HelpAction)
            return Refuse(string.Join("; ", parsed.Errors.Select(error => error.Message.TrimEnd('.'))));
        // Signals are ours: an orderly stop ends with 0.
        var configuration = new InvocationConfiguration { ProcessTerminationTimeout = null };
        return await parsed.InvokeAsync(configuration, CancellationToken.None);
    }

    private static async Task<int> ServeAsync((ApiServerOptions? Options, string Faults) flags, Action<string> log, CancellationToken stop)
    {
        if (flags.Options is not { } options)
            return Refuse(flags.Faults);
        await using var server = new ApiServer(options, TimeProvider.System, log);
        try
        {
            await server.RunAsync(stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            log("stopping; the keys stay until their leases end");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or KubeConfigurationException)
        {
            return Refuse(e.Message);
        }
        return 0;
    }

    private static async Task<int> MirrorAsync(KvstoremeshOptions options, Action<string> log, CancellationToken stop)
    {
        await using var server = new KvstoremeshServer(options, TimeProvider.System, log);
        try
        {
            await server.RunAsync(stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            log("stopping; what is mirrored stays in the journal");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return Refuse(e.Message);
        }
        return 0;
    }

    private static string Nearest(string token, IEnumerable<string> names, string command)
    {
        var name = token.Split('=')[0];
        var near = names.MinBy(flag => Distance(flag, name));
        return near is not null && Distance(near, name) <= 4
            ? $"did you mean {near}?"
            : $"clustermesh-apiserver {(command.StartsWith('-') ? "clustermesh" : command)} --help lists what is allowed";
    }

    /// <summary>Letters to change, add or remove to turn one word into the other.</summary>
    private static int Distance(string a, string b)
    {
        var row = Enumerable.Range(0, b.Length + 1).ToArray();
        for (var i = 1; i <= a.Length; i++)
        {
            var diagonal = row[0];
            row[0] = i;
            for (var j = 1; j <= b.Length; j++)
            {
                var above = row[j];
                row[j] = Math.Min(Math.Min(row[j] + 1, row[j - 1] + 1), diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }
        return row[^1];
    }

    private static int Refuse(string fault)
    {
        Console.Error.WriteLine($"clustermesh-apiserver: {fault}");
        return 1;
    }
}
