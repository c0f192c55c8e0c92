using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using k8s;
using k8s.Exceptions;
using k8s.KubeConfigModels;

namespace Mesh.Kubernetes.Api;

/// <summary>
/// Where an API server is and who we are to it: from a kubeconfig file, or from the service account of the pod we run in. Reading,
/// merging, exec plugins and token files are KubernetesClient's; what a person is told when it does not work is ours.
/// </summary>
public sealed class KubeConfiguration
{
    private const string InClusterName = "in-cluster";
    private const string ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount";

    private readonly KubernetesClientConfiguration _configuration;

    private KubeConfiguration(KubernetesClientConfiguration configuration, string origin, X509Certificate2Collection? authorities)
    {
        _configuration = configuration;
        Origin = origin;
        Authorities = authorities ?? configuration.SslCaCerts;
        if (!Uri.TryCreate(configuration.Host, UriKind.Absolute, out var server) || server.Scheme is not ("http" or "https"))
            throw new KubeConfigurationException($"{origin}: server '{configuration.Host}' must be a URL such as https://192.0.2.1:6443");
        Server = server;
    }

    /// <summary>Base address; ends with '/' or with a path prefix.</summary>
    public Uri Server { get; }

    /// <summary>File and context, or "in-cluster": what to name in messages.</summary>
    public string Origin { get; }

    /// <summary>Null in a cluster.</summary>
    public string? Context => Origin == InClusterName ? null : _configuration.CurrentContext;

    /// <summary>The context's namespace, or that of our pod; "default" when it does not say.</summary>
    public string Namespace => string.IsNullOrEmpty(_configuration.Namespace) ? "default" : _configuration.Namespace;

    internal X509Certificate2Collection? Authorities { get; }

    internal bool SkipTlsVerify => _configuration.SkipTlsVerify;

    internal string? TlsServerName => string.IsNullOrEmpty(_configuration.TlsServerName) ? null : _configuration.TlsServerName;

    /// <summary>True inside a pod that has a service account.</summary>
    public static bool IsInCluster => Environment.GetEnvironmentVariable("KUBERNETES_SERVICE_HOST") is { Length: > 0 }
        && File.Exists(Path.Combine(ServiceAccount, "token"));

    /// <summary>Finds the configuration as kubectl does: the given file, else the files of KUBECONFIG, else the pod's service account when
    /// there is no ~/.kube/config, else ~/.kube/config.</summary>
    /// <param name="path">Null for none given.</param>
    /// <param name="context">Null for the current one.</param>
    /// <exception cref="KubeConfigurationException">There is none, or it points nowhere.</exception>
    public static KubeConfiguration Find(string? path = null, string? context = null)
    {
        if (path is { Length: > 0 })
            return FromFiles([path], context);
        var named = FilesOfEnvironment();
        if (named.Length > 0)
            return FromFiles(named, context);
        return !File.Exists(DefaultPath) && context is null && IsInCluster ? InCluster() : FromFiles([DefaultPath], context);
    }

    /// <summary>From one kubeconfig file.</summary>
    /// <exception cref="KubeConfigurationException">It cannot be read, has no such context, or points nowhere.</exception>
    public static KubeConfiguration FromFile(string path, string? context = null) => FromFiles([path], context);

    /// <summary>The service account of the pod we run in. Its token is read again every minute.</summary>
    /// <exception cref="KubeConfigurationException">We do not run in a pod, or it has no service account.</exception>
    public static KubeConfiguration InCluster()
    {
        try
        {
            var authorities = new X509Certificate2Collection();
            authorities.ImportFromPemFile(Path.Combine(ServiceAccount, "ca.crt"));
            return new KubeConfiguration(KubernetesClientConfiguration.InClusterConfig(), InClusterName, authorities);
        }
        catch (Exception e) when (e is KubeConfigException or IOException or UnauthorizedAccessException or CryptographicException)
        {
            throw new KubeConfigurationException("in-cluster: no service account is mounted here (KUBERNETES_SERVICE_HOST and "
                + $"{ServiceAccount}): run in a pod, or give a kubeconfig file ({OneLine(e.Message)})", e);
        }
    }

    /// <summary>Names of the contexts, the current one first.</summary>
    /// <param name="path">Null for where <see cref="Find"/> looks.</param>
    /// <exception cref="KubeConfigurationException">No such file, or it is none.</exception>
    public static IReadOnlyList<string> Contexts(string? path = null)
    {
        var named = FilesOfEnvironment();
        IReadOnlyList<string> files = path is { Length: > 0 } ? [path] : named.Length > 0 ? named : [DefaultPath];
        var (loaded, _) = Load(files);
        return [.. (loaded.Contexts ?? []).Select(context => context.Name).OrderBy(name => name != loaded.CurrentContext)];
    }

    /// <summary>Who we are, for a request now. Null for nobody.</summary>
    internal async Task<AuthenticationHeaderValue?> AuthorizationAsync(CancellationToken cancellation)
    {
        if (_configuration.TokenProvider is { } provider)
            return await provider.GetAuthenticationHeaderAsync(cancellation).ConfigureAwait(false);
        if (_configuration.AccessToken is { Length: > 0 } token)
            return new AuthenticationHeaderValue("Bearer", token);
        return _configuration.Username is { Length: > 0 } user
            ? new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes($"{user}:{_configuration.Password}")))
            : null;
    }

    /// <summary>Null when the configuration has none.</summary>
    /// <exception cref="KubeConfigurationException">It has one that cannot be read.</exception>
    internal X509Certificate2? ClientCertificate()
    {
        try
        {
            var certificate = Pem(_configuration.ClientCertificateData, _configuration.ClientCertificateFilePath);
            var key = Pem(_configuration.ClientCertificateKeyData, _configuration.ClientKeyFilePath);
            return certificate is null || key is null ? null : X509Certificate2.CreateFromPem(certificate, key);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CryptographicException or FormatException or ArgumentException)
        {
            throw new KubeConfigurationException($"{Origin}: its client certificate or key cannot be read: {OneLine(e.Message)}", e);
        }
    }

    private static string? Pem(string? data, string? path) =>
        data is { Length: > 0 } ? Encoding.UTF8.GetString(Convert.FromBase64String(data)) : path is { Length: > 0 } ? File.ReadAllText(path) : null;

    private static string DefaultPath => Path.Combine(Environment.GetEnvironmentVariable("HOME") is { Length: > 0 } home ? home : "/", ".kube/config");

    private static string[] FilesOfEnvironment() =>
        (Environment.GetEnvironmentVariable("KUBECONFIG") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    private static KubeConfiguration FromFiles(IReadOnlyList<string> paths, string? context)
    {
        var (loaded, shown) = Load(paths);
        context ??= loaded.CurrentContext;
        if (string.IsNullOrEmpty(context))
            throw new KubeConfigurationException($"{shown}: no current context: choose one of {Listed(loaded)}");
        var chosen = (loaded.Contexts ?? []).FirstOrDefault(one => one.Name == context)
            ?? throw new KubeConfigurationException($"{shown}: has no context '{context}': choose one of {Listed(loaded)}");
        if (FaultOf(loaded, chosen.ContextDetails) is { } fault)
            throw new KubeConfigurationException($"{shown}, context {context}: {fault}");
        try
        {
            // Names are looked up without regard to case there: only the chosen one is left to be found.
            loaded.Contexts = [chosen];
            var built = KubernetesClientConfiguration.BuildConfigFromConfigObject(loaded, context);
            return new KubeConfiguration(built, $"{shown}, context {context}", AuthoritiesOf(loaded, chosen));
        }
        catch (Exception e) when (e is not KubeConfigurationException)
        {
            throw new KubeConfigurationException($"{shown}, context {context}: {OneLine(e.Message)}", e);
        }
    }

    private static (K8SConfiguration Loaded, string Shown) Load(IReadOnlyList<string> paths)
    {
        var shown = string.Join(':', paths);
        var present = paths.Where(File.Exists).ToArray();
        if (present.Length == 0)
            throw new KubeConfigurationException($"{shown}: no such kubeconfig file: name one that exists (--kubeconfig or KUBECONFIG)");
        try
        {
            return (Merged([.. present.Select(LoadOne)]), shown);
        }
        catch (Exception e)
        {
            // The library speaks of its own types where the file holds a list, a text or nothing.
            throw new KubeConfigurationException($"{shown}: is no kubeconfig: "
                + (e is InvalidCastException or NullReferenceException || e.Message.Contains(nameof(K8SConfiguration), StringComparison.Ordinal)
                    ? "it must be a map with clusters, users and contexts" : OneLine(e.Message)), e);
        }
    }

    /// <summary>What a context points at and is not there; null when all is.</summary>
    private static string? FaultOf(K8SConfiguration loaded, ContextDetails? context)
    {
        var cluster = (loaded.Clusters ?? []).FirstOrDefault(one => one.Name == context?.Cluster)?.ClusterEndpoint;
        if (cluster is null)
            return $"its cluster '{context?.Cluster}' is not in the file: choose one of {string.Join(", ", (loaded.Clusters ?? []).Select(one => one.Name))}";
        var user = (loaded.Users ?? []).FirstOrDefault(one => one.Name == context!.User)?.UserCredentials;
        if (user is null && !string.IsNullOrEmpty(context!.User))
            return $"its user '{context.User}' is not in the file: choose one of {string.Join(", ", (loaded.Users ?? []).Select(one => one.Name))}";
        foreach (var (name, file) in new[]
        {
            ("certificate-authority", cluster.CertificateAuthority), ("client-certificate", user?.ClientCertificate), ("client-key", user?.ClientKey),
        })
        {
            if (!string.IsNullOrEmpty(file) && !File.Exists(file))
                return $"{name} {file}: there is no such file";
        }
        foreach (var (name, data) in new[]
        {
            ("certificate-authority-data", cluster.CertificateAuthorityData), ("client-certificate-data", user?.ClientCertificateData),
            ("client-key-data", user?.ClientKeyData),
        })
        {
            if (!string.IsNullOrEmpty(data) && !System.Buffers.Text.Base64.IsValid(data))
                return $"{name} is no base64";
        }
        return null;
    }

    /// <summary>The first file's word counts, as kubectl has it.</summary>
    private static K8SConfiguration Merged(K8SConfiguration[] files)
    {
        var first = files[0];
        first.CurrentContext = files.Select(file => file.CurrentContext).FirstOrDefault(name => !string.IsNullOrEmpty(name));
        first.Clusters = [.. files.SelectMany(file => file.Clusters ?? []).DistinctBy(cluster => cluster.Name)];
        first.Users = [.. files.SelectMany(file => file.Users ?? []).DistinctBy(user => user.Name)];
        first.Contexts = [.. files.SelectMany(file => file.Contexts ?? []).DistinctBy(context => context.Name)];
        return first;
    }

    /// <summary>Paths inside are relative to the file: they are made whole before files are merged.</summary>
    private static K8SConfiguration LoadOne(string path)
    {
        var loaded = KubernetesClientConfiguration.LoadKubeConfig(new FileInfo(path));
        var folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        string Whole(string inside) => string.IsNullOrEmpty(inside) ? inside : Path.Combine(folder, inside);
        foreach (var cluster in (loaded.Clusters ?? []).Select(cluster => cluster.ClusterEndpoint).Where(endpoint => endpoint is not null))
            cluster.CertificateAuthority = Whole(cluster.CertificateAuthority);
        foreach (var user in (loaded.Users ?? []).Select(user => user.UserCredentials).Where(credentials => credentials is not null))
        {
            user.ClientCertificate = Whole(user.ClientCertificate);
            user.ClientKey = Whole(user.ClientKey);
        }
        return loaded;
    }

    /// <summary>All authorities of the cluster's file, which may be several while one follows another; null for those of the system.</summary>
    private static X509Certificate2Collection? AuthoritiesOf(K8SConfiguration loaded, Context context)
    {
        var cluster = (loaded.Clusters ?? []).FirstOrDefault(one => one.Name == context.ContextDetails?.Cluster)?.ClusterEndpoint;
        if (cluster is null)
            return null;
        if (Pem(cluster.CertificateAuthorityData, cluster.CertificateAuthority) is not { } pem || !pem.Contains("-----BEGIN", StringComparison.Ordinal))
            return null;
        var authorities = new X509Certificate2Collection();
        authorities.ImportFromPem(pem);
        return authorities;
    }

    private static string Listed(K8SConfiguration loaded) =>
        loaded.Contexts?.Count > 0 ? string.Join(", ", loaded.Contexts.Select(context => context.Name)) : "none (the file has no contexts)";

    internal static string OneLine(string text) => text.ReplaceLineEndings(" ").Trim();
}

/// <summary>A kubeconfig that is none, or that points nowhere; the message names file, context and mend in one line.</summary>
public sealed class KubeConfigurationException(string message, Exception? inner = null) : Exception(message, inner);
