using System.Net;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using Grpc.Net.Client;

namespace Mesh.ClusterMesh.Door.Bench;

/// <summary>A door in a process of its own, so that its memory and processor time are its own too. Prints its port, ends with its input.</summary>
internal static class DoorProcess
{
    public static async Task<int> ServeAsync(string etcd, string directory)
    {
        string Path(string name) => System.IO.Path.Combine(directory, name);
        var tls = new SslClientAuthenticationOptions
        {
            ClientCertificates = [X509Certificate2.CreateFromPemFile(Path("root.crt"), Path("root.key"))],
            CertificateChainPolicy = Trust(Path("ca.crt")),
        };
        using var channel = GrpcChannel.ForAddress(etcd, new GrpcChannelOptions
        {
            MaxReceiveMessageSize = null,
            HttpHandler = new SocketsHttpHandler { SslOptions = tls },
            DisposeHttpClient = true,
        });
        var options = new DoorOptions
        {
            ClusterName = "falcon",
            Listen = new IPEndPoint(IPAddress.Loopback, 0),
            CertFile = Path("server.crt"),
            KeyFile = Path("server.key"),
            TrustedCaFile = Path("ca.crt"),
        };
        await using var door = new ClusterDoor(options, channel.CreateCallInvoker(), TimeProvider.System, Console.Error.WriteLine);
        await door.OpenAsync(CancellationToken.None);
        Console.WriteLine(door.Address!.Port);
        while (Console.ReadLine() is { } question)
        {
            if (question == "collect")
                GC.Collect(2, GCCollectionMode.Aggressive, true, true);
            Console.WriteLine($"heap {GC.GetTotalMemory(false)}");
        }
        return 0;
    }

    public static X509ChainPolicy Trust(string authority)
    {
        var policy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, RevocationMode = X509RevocationMode.NoCheck };
        policy.CustomTrustStore.ImportFromPemFile(authority);
        return policy;
    }
}
