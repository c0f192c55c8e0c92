using System.CommandLine;
using System.Net;
using Mesh.ClusterMesh.Door;

namespace Mesh.ClusterMesh.ApiServer.Commands;

/// <summary>The flags of the door: where it is, whose certificates open it, and to whom.</summary>
internal sealed class DoorFlags
{
    private const string DefaultListen = "[::]:2379";
    private const string DefaultUsers = "/var/lib/cilium/etcd-config/users.yaml";

    private readonly Option<string> _listen =
        Flag("--door-listen-addr", "", $"IP:PORT where readers connect; {DefaultListen} when the certificate files are given.");

    private readonly Option<string> _ca = Flag("--door-trusted-ca-file", "", "PEM file: who issues the certificates of readers (a bundle).");
    private readonly Option<string> _cert = Flag("--door-cert-file", "", "PEM file: certificate of the door.");
    private readonly Option<string> _key = Flag("--door-key-file", "", "PEM file: its key.");
    private readonly Option<string> _mode = Flag("--auth-mode", "migration", "legacy, migration or cluster: which users of other clusters exist.");
    private readonly Option<string> _users = Flag("--cluster-users-config-path", "", $"Users of other clusters, followed live ({DefaultUsers}).");
    private readonly Option<bool> _usersEnabled = new("--cluster-users-enabled") { Description = "Read the users file at its usual place." };
    private readonly Option<string> _revoked = Flag("--door-revoked-file", "", "SHA-256 fingerprints of refused certificates, followed live.");
    private readonly Option<string> _stateDir = Flag("--state-dir", "",
        "What this replica remembers over a restart: its name, and which etcd its door followed.");

    public IEnumerable<Option> All => [_listen, _ca, _cert, _key, _mode, _users, _usersEnabled, _revoked, _stateDir];

    /// <returns>Null when none was given.</returns>
    public string? StateDirectory(ParseResult parsed) =>
        parsed.GetValue(_stateDir) is { Length: > 0 } directory ? Path.GetFullPath(directory) : null;

    /// <returns>Null for no door, which is a fault of nobody; faults are told.</returns>
    public DoorOptions? Read(ParseResult parsed, string clusterName, Action<string> fault)
    {
        string Value(Option<string> flag) => parsed.GetValue(flag) ?? "";
        Option<string>[] files = [_ca, _cert, _key];
        if (files.All(flag => Value(flag).Length == 0))
        {
            if (Value(_listen).Length > 0)
                fault($"{_listen.Name}: without {string.Join(", ", files.Select(flag => flag.Name))} there is no door");
            return null;
        }
        foreach (var flag in files)
        {
            if (Value(flag).Length == 0)
                fault($"{flag.Name}: missing; the three certificate files of the door go together");
            else if (!File.Exists(Value(flag)))
                fault($"{flag.Name} {Value(flag)}: there is no such file");
        }
        var listen = Value(_listen).Length > 0 ? Value(_listen) : DefaultListen;
        if (!listen.Contains(':', StringComparison.Ordinal) || !IPEndPoint.TryParse(listen, out var endPoint) || endPoint.Port == 0)
        {
            fault($"{_listen.Name} '{listen}': must be IP:PORT");
            endPoint = null;
        }
        AuthenticationMode? mode = Value(_mode) switch
        {
            "legacy" => AuthenticationMode.Legacy,
            "migration" => AuthenticationMode.Migration,
            "cluster" => AuthenticationMode.Cluster,
            _ => null,
        };
        if (mode is null)
            fault($"{_mode.Name} '{Value(_mode)}': must be legacy, migration or cluster");
        var users = Value(_users).Length > 0 ? Value(_users) : parsed.GetValue(_usersEnabled) ? DefaultUsers : null;
        Require(_users, users);
        Require(_revoked, Value(_revoked).Length > 0 ? Value(_revoked) : null);
        if (mode == AuthenticationMode.Cluster && users is null)
            fault($"{_mode.Name} cluster: needs {_users.Name}, or no peer could read");
        if (endPoint is null || mode is null || files.Any(flag => Value(flag).Length == 0))
            return null;
        return new DoorOptions
        {
            ClusterName = clusterName,
            Listen = endPoint,
            TrustedCaFile = Path.GetFullPath(Value(_ca)),
            CertFile = Path.GetFullPath(Value(_cert)),
            KeyFile = Path.GetFullPath(Value(_key)),
            Mode = mode.Value,
            UsersFile = users,
            RevokedFile = Value(_revoked).Length > 0 ? Value(_revoked) : null,
        };

        void Require(Option<string> flag, string? file)
        {
            if (file is not null && !File.Exists(file))
                fault($"{flag.Name} {file}: there is no such file");
        }
    }

    private static Option<string> Flag(string name, string byDefault, string description) =>
        new(name) { Description = description, DefaultValueFactory = _ => byDefault };
}
