using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Mesh.KVStore;
using Mesh.Pki;

namespace Mesh.ClusterMesh.ApiServer.Etcd;

/// <summary>
/// How the etcd child and this process know each other: an authority that issues one server and one client certificate and is then
/// forgotten, so that nobody can ever be issued a third. Whoever cannot read the directory (mode 0700) can neither read nor write
/// that etcd, though it listens on loopback. Peers are let in at the door, by certificates of another authority.
/// </summary>
internal sealed class EtcdCertificates(string dataDirectory)
{
    /// <summary>They are made anew whenever etcd is started, and only then needed.</summary>
    private static readonly TimeSpan Lifetime = TimeSpan.FromDays(3650);

    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    /// <summary>Below the ports that the kernel gives to outgoing connections, so that none of those takes it in a moment without etcd.</summary>
    private const int PortMin = 20_000;
    private const int PortMax = 32_000;

    private readonly string _directory = Path.Combine(dataDirectory, "pki");
    private readonly int _port = ChoosePort(Path.Combine(dataDirectory, "pki", "client.yaml"));

    public string Url => $"https://127.0.0.1:{_port.ToString(CultureInfo.InvariantCulture)}";

    public string CaFile => Path.Combine(_directory, "ca.crt");

    public string ServerCertFile => Path.Combine(_directory, "server.crt");

    public string ServerKeyFile => Path.Combine(_directory, "server.key");

    public string AdminCertFile => Path.Combine(_directory, "admin.crt");

    public string AdminKeyFile => Path.Combine(_directory, "admin.key");

    /// <summary>Where etcd is and how to reach it, in the format of `--kvstore-opt etcd.config=FILE`.</summary>
    public string ConfigFile => Path.Combine(_directory, "client.yaml");

    /// <summary>How this process reaches it.</summary>
    public EtcdOptions ClientOptions() =>
        new() { Endpoints = [Url], TrustedCaFile = CaFile, CertFile = AdminCertFile, KeyFile = AdminKeyFile };

    /// <exception cref="IOException">The directory cannot be written.</exception>
    public void Make()
    {
        Directory.CreateDirectory(dataDirectory, OwnerOnly);
        Directory.CreateDirectory(_directory, OwnerOnly);
        File.SetUnixFileMode(_directory, OwnerOnly);
        using var authority = CertificateAuthority.Create("clustermesh etcd", Lifetime);
        Write(authority.Issue("etcd", ["localhost"], [IPAddress.Loopback], Lifetime), ServerCertFile, ServerKeyFile);
        // The one user that every etcd knows, also one whose data remember that users were switched on.
        Write(authority.Issue("root", [], [], Lifetime), AdminCertFile, AdminKeyFile);
        File.WriteAllText(CaFile, authority.CertificatePem);
        File.WriteAllText(ConfigFile, $"""
            endpoints:
            - {Url}
            trusted-ca-file: {CaFile}
            cert-file: {AdminCertFile}
            key-file: {AdminKeyFile}

            """);
    }

    private static void Write(IssuedCertificate issued, string certificateFile, string keyFile)
    {
        File.Delete(keyFile);
        using (var key = new StreamWriter(new FileStream(keyFile, new FileStreamOptions
        {
            Mode = FileMode.CreateNew,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        })))
            key.Write(issued.KeyPem);
        File.WriteAllText(certificateFile, issued.CertificatePem);
    }

    /// <summary>The port of the former life if it is free, so that who works on this etcd by hand finds it again; else any.</summary>
    private static int ChoosePort(string configFile)
    {
        try
        {
            if (File.Exists(configFile) && EtcdConfigFile.Parse(File.ReadAllText(configFile)).Endpoints is [var former]
                && new Uri(former).Port is >= PortMin and <= PortMax and var port && IsFree(port))
                return port;
        }
        catch (Exception e) when (e is FormatException or IOException or UnauthorizedAccessException)
        {
            // It is written anew in any case.
        }
        for (var attempt = 0; attempt < 1000; attempt++)
        {
            var candidate = Random.Shared.Next(PortMin, PortMax);
            if (IsFree(candidate))
                return candidate;
        }
        throw new IOException($"no port of 127.0.0.1 between {PortMin} and {PortMax} is free for etcd: end what holds them");
    }

    private static bool IsFree(int port)
    {
        try
        {
            using var probe = new TcpListener(IPAddress.Loopback, port);
            probe.Start();
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
