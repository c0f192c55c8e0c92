using System.Text;
using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Mesh.Operator.Collecting;
using Mesh.Operator.Ipam;
using Mesh.Operator.Multicluster;

namespace Mesh.Operator;

/// <summary>
/// What one of a cluster does for all: the definitions of our kinds, pod ranges for nodes, an end for identities and endpoints that nobody uses,
/// services of other clusters.
/// Several may run; who holds the lease works, the others wait. The API server's absence stops everything and loses nothing.
/// </summary>
internal sealed class ClusterOperator(OperatorOptions options, KubeClient client, TimeProvider time, OperatorLog log) : IAsyncDisposable
{
    public const string LeaseName = "cilium-operator-resource-lock";

    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(2);

    private readonly LeaseElection _election = new(client, options.Namespace, LeaseName, options.Identity,
        new LeaseElectionOptions { Time = time, Log = log.Line });

    private readonly MeshServices _services = new(options, client, time, log);
    private readonly List<WebApplication> _pages = [];
    private volatile bool _defined;

    public bool IsLeader => _election.IsLeader;

    public async Task RunAsync(CancellationToken cancellation)
    {
        await ServeAsync(cancellation);
        await _election.RunAsync(LeadAsync, cancellation);
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var page in _pages)
            await page.DisposeAsync();
    }

    private async Task LeadAsync(CancellationToken cancellation)
    {
        await DefineAsync(cancellation);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var tasks = new List<Task> { WorkOnAsync(stop.Token), new TurnedOff(options, client, time, log).RunAsync(stop.Token) };
        if (options.SyncsEndpoints || options.Imports)
            tasks.Add(_services.RunAsync(stop.Token));
        try
        {
            await await Task.WhenAny(tasks);
        }
        finally
        {
            await stop.CancelAsync();
            await Task.WhenAll(tasks).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private async Task WorkOnAsync(CancellationToken cancellation)
    {
        while (!cancellation.IsCancellationRequested)
            await WorkAsync(cancellation);
    }

    /// <summary>Until a write was refused; then everybody is heard anew.</summary>
    private async Task WorkAsync(CancellationToken cancellation)
    {
        var reflecting = new ReflectorOptions { Time = time, Log = log.Line, BackoffMax = TimeSpan.FromSeconds(5) };
        var nodes = new Reflector<CiliumNode>(client, KubeResources.CiliumNodes, reflecting);
        var identities = new Reflector<CiliumIdentity>(client, KubeResources.CiliumIdentities, reflecting);
        var endpoints = new Reflector<CiliumEndpoint>(client, KubeResources.CiliumEndpoints, reflecting);
        var pods = new Reflector<Pod>(client, KubeResources.Pods, reflecting);
        var ranges = new NodeRanges(client, [.. options.Pools.Select(pool => new RangePool(pool.Pools, pool.Size))], log);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var tasks = new List<Task>
        {
            FollowAsync(identities, stop.Token), FollowAsync(endpoints, stop.Token), FollowAsync(pods, stop.Token),
            CollectAsync(new UnusedIdentities(client, identities, endpoints, options.IdentityGrace, time, log),
                new LostEndpoints(client, endpoints, pods, log), stop.Token),
        };
        if (!options.RangesOfKubernetes)
            tasks.Add(GiveRangesAsync(ranges, nodes, stop.Token));
        try
        {
            await await Task.WhenAny(tasks);
        }
        finally
        {
            await stop.CancelAsync();
            await Task.WhenAll(tasks).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>Until it has succeeded once: without the definitions nothing of ours can be.</summary>
    private async Task DefineAsync(CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                var definitions = CrdInstaller.Definitions.Concat(options.Imports ? CrdInstaller.MulticlusterDefinitions : []);
                foreach (var result in await CrdInstaller.InstallAsync(client, time, cancellation, [.. definitions]))
                {
                    if (result.Outcome is not CrdOutcome.UpToDate)
                        log.Line($"definition {result.Name}: {result.Outcome.ToString().ToLowerInvariant()} {result.Note}".TrimEnd());
                }
                log.Mended("definitions");
                _defined = true;
                return;
            }
            catch (KubeApiException e)
            {
                log.Problem("definitions", e.Message);
                await Task.Delay(e.RetryAfter ?? Retry, time, cancellation);
            }
        }
    }

    private async Task GiveRangesAsync(NodeRanges ranges, Reflector<CiliumNode> nodes, CancellationToken cancellation)
    {
        try
        {
            await ranges.RunAsync(nodes, cancellation);
        }
        catch (KubeApiException e)
        {
            // For another reason than a race: everybody is heard again before anything more is given.
            log.Problem("pod ranges", e.Message);
            await Task.Delay(e.RetryAfter ?? Retry, time, cancellation);
            log.Mended("pod ranges");
        }
    }

    private static async Task FollowAsync<T>(Reflector<T> reflector, CancellationToken cancellation)
        where T : class
    {
        await foreach (var batch in reflector.WatchAsync(cancellation))
            _ = batch;
    }

    private async Task CollectAsync(UnusedIdentities identities, LostEndpoints endpoints, CancellationToken cancellation)
    {
        using var tick = new PeriodicTimer(options.CollectEvery, time);
        while (await tick.WaitForNextTickAsync(cancellation))
        {
            try
            {
                await endpoints.CollectAsync(cancellation);
                await identities.CollectAsync(cancellation);
                log.Mended("collecting");
            }
            catch (KubeApiException e)
            {
                log.Problem("collecting", e.Message);
            }
        }
    }

    private async Task ServeAsync(CancellationToken cancellation)
    {
        _pages.Add(await ListenAsync(options.ApiAddress, context => context.Request.Path.Value switch
        {
            // A replica that waits is well; a leader that could not even define our kinds is not.
            "/healthz" when IsLeader && !_defined => (500, "text/plain", log.Problems.GetValueOrDefault("definitions", "starting")),
            "/healthz" => (200, "text/plain", "ok"),
            "/problems" => (200, "application/json", ProblemsJson()),
            _ => (404, "text/plain", "/healthz and /problems are here"),
        }, cancellation));
        if (options.PrometheusAddress is { } address)
            _pages.Add(await ListenAsync(address, context => context.Request.Path == "/metrics"
                ? (200, "text/plain; version=0.0.4; charset=utf-8", Metrics()) : (404, "text/plain", "/metrics is here"), cancellation));
    }

    internal string Metrics() => new StringBuilder()
        .Append("# HELP mesh_operator_leader 1 for the replica that works.\n# TYPE mesh_operator_leader gauge\n")
        .Append($"mesh_operator_leader {(IsLeader ? 1 : 0)}\n")
        .Append("# HELP mesh_operator_problems Things that are wrong now.\n# TYPE mesh_operator_problems gauge\n")
        .Append($"mesh_operator_problems {log.Problems.Count}\n")
        .Append(options.SyncsEndpoints || options.Imports ? _services.Metrics() : "").ToString();

    private string ProblemsJson()
    {
        var problems = new JsonObject();
        foreach (var (where, message) in log.Problems)
            problems[where] = message;
        return problems.ToJsonString();
    }

    private static async Task<WebApplication> ListenAsync(System.Net.IPEndPoint address, Func<HttpContext, (int Status, string Type, string Body)> answer,
        CancellationToken cancellation)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.Listen(address));
        var application = builder.Build();
        application.Run(async context =>
        {
            var (status, type, body) = answer(context);
            context.Response.StatusCode = status;
            context.Response.ContentType = type;
            await context.Response.WriteAsync(body + (type == "application/json" ? "\n" : ""), context.RequestAborted);
        });
        await application.StartAsync(cancellation);
        return application;
    }
}
