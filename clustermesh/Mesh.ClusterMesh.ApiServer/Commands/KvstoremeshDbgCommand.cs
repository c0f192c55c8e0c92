using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Mesh.AgentApi;

namespace Mesh.ClusterMesh.ApiServer.Commands;

/// <summary>`kvstoremesh-dbg status`: what a running relay says of its peers, in the words of Cilium's own tool.</summary>
internal static class KvstoremeshDbgCommand
{
    public const string Word = "kvstoremesh-dbg";
    private const string PathWord = "jsonpath=";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    public static Command Build(TextWriter output, TextWriter error, TimeProvider time)
    {
        var host = new Option<string>("--host", "-H") { Description = "Where the relay serves its API.", DefaultValueFactory = _ => "localhost:9889" };
        var format = new Option<string>("--output", "-o")
        {
            Description = "json, yaml or jsonpath='{…}'; without, text for people.",
            DefaultValueFactory = _ => "",
        };
        var verbose = new Option<bool>("--verbose") { Description = "Tell of ready clusters all there is, too." };
        var status = new Command("status", "Print the state of each remote cluster.") { host, format, verbose };
        status.SetAction(async (parsed, cancellation) =>
            await StatusAsync(parsed.GetValue(host)!, parsed.GetValue(format)!, parsed.GetValue(verbose), output, error, time, cancellation));
        return new Command(Word, "Look into a running kvstoremesh.") { status };
    }

    private static async Task<int> StatusAsync(
        string host, string format, bool verbose, TextWriter output, TextWriter error, TimeProvider time, CancellationToken cancellation)
    {
        JsonPath? path = null;
        try
        {
            if (format.StartsWith(PathWord, StringComparison.Ordinal))
                path = JsonPath.Parse(format[PathWord.Length..]);
            else if (format is not ("" or "json" or "yaml"))
                throw new FormatException("must be json, yaml or jsonpath='{…}'");
        }
        catch (FormatException e)
        {
            await error.WriteLineAsync($"clustermesh-apiserver: -o '{format}': {e.Message}");
            return 1;
        }
        IReadOnlyList<RemoteCluster> clusters;
        try
        {
            using var http = new HttpClient { Timeout = Patience };
            await using var body = await http.GetStreamAsync(new Uri($"http://{host}/v1/cluster"), cancellation);
            clusters = await JsonSerializer.DeserializeAsync(body, AgentApiJson.Wire.IReadOnlyListRemoteCluster, cancellation) ?? [];
        }
        catch (Exception e) when (e is HttpRequestException or TaskCanceledException or JsonException or UriFormatException)
        {
            await error.WriteLineAsync($"Failed to retrieve status information: is KVStoreMesh running and serving the API on {host}?");
            return 1;
        }
        if (format == "json")
            await output.WriteLineAsync(JsonSerializer.Serialize(clusters, AgentApiJson.Indented.IReadOnlyListRemoteCluster));
        else if (format == "yaml")
            await output.WriteAsync(Yaml.Of(JsonSerializer.SerializeToElement(clusters, AgentApiJson.Wire.IReadOnlyListRemoteCluster)));
        else if (path is not null)
            await output.WriteLineAsync(path.Of(JsonSerializer.SerializeToElement(clusters, AgentApiJson.Wire.IReadOnlyListRemoteCluster)));
        else
            await output.WriteAsync(Text(clusters, verbose, time.GetUtcNow()));
        return 0;
    }

    public static string Text(IReadOnlyList<RemoteCluster> clusters, bool verbose, DateTimeOffset now)
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"KVStoreMesh:\t{clusters.Count(cluster => cluster.Ready)}/{clusters.Count} remote clusters ready\n");
        foreach (var cluster in clusters)
        {
            text.Append(CultureInfo.InvariantCulture, $"   {cluster.Name}: {(cluster.Ready ? "ready" : "not-ready")}, {cluster.NumNodes} nodes, ")
                .Append(CultureInfo.InvariantCulture, $"{cluster.NumEndpoints} endpoints, {cluster.NumIdentities} identities, ")
                .Append(CultureInfo.InvariantCulture, $"{cluster.NumSharedServices} services, {cluster.NumServiceExports} MCS-API service exports, ")
                .Append(CultureInfo.InvariantCulture, $"{cluster.NumFailures} reconnections (last: {Ago(cluster.LastFailure, now)})\n");
            foreach (var problem in cluster.Problems ?? [])
                text.Append(CultureInfo.InvariantCulture, $"   └  ⚠️  {problem}\n");
            if (cluster.Ready && !verbose)
                continue;
            text.Append(CultureInfo.InvariantCulture, $"   └  {cluster.Status}\n")
                .Append(CultureInfo.InvariantCulture, $"   └  remote configuration: {Configuration(cluster.Config)}\n");
            if (cluster.Synced is not { } synced)
                continue;
            text.Append(CultureInfo.InvariantCulture, $"   └  synchronization status: nodes={Go(synced.Nodes)}, endpoints={Go(synced.Endpoints)}, ")
                .Append(CultureInfo.InvariantCulture, $"identities={Go(synced.Identities)}, services={Go(synced.Services)}")
                .Append(synced.ServiceExports is { } exports ? $", service-exports={Go(exports)}" : "").Append('\n');
        }
        return text.ToString();
    }

    private static string Configuration(RemoteClusterConfig? config)
    {
        if (config is null)
            return "expected=unknown, retrieved=unknown";
        var text = $"expected={Go(config.Required)}, retrieved={Go(config.Retrieved)}";
        if (!config.Retrieved)
            return text;
        var exports = config.ServiceExportsEnabled switch { null => "unsupported", true => "enabled", false => "disabled" };
        return $"{text}, cluster-id={config.ClusterId}, kvstoremesh={Go(config.Kvstoremesh)}, "
            + $"sync-canaries={Go(config.SyncCanaries)}, service-exports={exports}";
    }

    private static string Ago(DateTimeOffset when, DateTimeOffset now)
    {
        if (when.Year <= 1)
            return "never";
        var age = now - when;
        var text = age.TotalHours >= 1 ? $"{(int)age.TotalHours}h{age.Minutes}m{age.Seconds}s"
            : age.TotalMinutes >= 1 ? $"{age.Minutes}m{age.Seconds}s" : $"{age.Seconds}s";
        return $"{text} ago";
    }

    private static string Go(bool value) => value ? "true" : "false";
}
