using Mesh.KubeApi;
using Mesh.Kubernetes.Api;
using Xunit;

namespace Mesh.Kubernetes.Tests.Api;

/// <summary>An API server of its own, a kubeconfig that leads there, and a client.</summary>
internal sealed class Cluster : IAsyncDisposable
{
    private readonly string _home;

    private Cluster(KubeApiServer server, string home)
    {
        Server = server;
        _home = home;
        Kubeconfig = Path.Combine(home, "config");
        server.WriteKubeconfig(Kubeconfig, "tokyo");
        Client = NewClient();
    }

    public static TimeSpan Patience { get; } = TimeSpan.FromSeconds(15);

    public KubeApiServer Server { get; }

    public string Kubeconfig { get; }

    public KubeClient Client { get; }

    public static async Task<Cluster> StartAsync(KubeApiOptions? options = null) =>
        new(await KubeApiServer.StartAsync(options), Directory.CreateTempSubdirectory("mesh-kube-").FullName);

    public KubeClient NewClient(TimeSpan? patience = null, string? context = null) => new(KubeConfiguration.FromFile(Kubeconfig, context),
        new KubeClientOptions { RequestTimeout = patience ?? Patience, UserAgent = "mesh-tests" });

    /// <summary>A client of a user who may do what RBAC objects give him.</summary>
    public KubeClient ClientOf(string user)
    {
        Server.WriteKubeconfig(Kubeconfig + "-" + user, user, new KubeUser(user), KubeCredential.Token);
        return new KubeClient(KubeConfiguration.FromFile(Kubeconfig + "-" + user), new KubeClientOptions { RequestTimeout = Patience });
    }

    /// <summary>Several documents, each of them JSON.</summary>
    public void Apply(string manifests) => Server.Apply("---\n" + manifests);

    public void ApplyCrds() => Apply(string.Join("\n---\n", CrdInstaller.Definitions.Select(definition => definition.ToJsonString())));

    public static async Task Until(Func<bool> condition, Func<string> shown)
    {
        using var patience = new CancellationTokenSource(Patience);
        while (!condition())
        {
            if (patience.IsCancellationRequested)
                Assert.Fail(shown());
            await Task.Delay(5, CancellationToken.None);
        }
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await Server.DisposeAsync();
        Directory.Delete(_home, recursive: true);
    }
}
