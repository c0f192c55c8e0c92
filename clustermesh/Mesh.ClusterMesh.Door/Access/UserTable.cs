using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Mesh.ClusterMesh.Door.Access;

/// <summary>
/// Who a client certificate is and what it may read: its CN is the user (kvstore contract §4.1, §4.3). Users of the cluster itself are
/// fixed; those of other clusters depend on the authentication mode and the users file, which is followed live.
/// </summary>
internal sealed class UserTable
{
    private readonly string _cluster;
    private readonly AuthenticationMode _mode;
    private readonly bool _sharedRemote;
    private readonly Roles _roles;
    private readonly WatchedFile<Dictionary<string, string>>? _users;
    private readonly WatchedFile<HashSet<string>>? _revoked;

    /// <exception cref="InvalidDataException">A file cannot be used at start.</exception>
    public UserTable(DoorOptions options, Roles roles, Action<string> log)
    {
        _cluster = options.ClusterName;
        _mode = options.Mode;
        _sharedRemote = !options.RefuseSharedRemote;
        _roles = roles;
        if (options.UsersFile is { } users && options.Mode != AuthenticationMode.Legacy)
            _users = new([users], contents => Checked(UsersFile.Parse(contents[0])), log);
        if (options.RevokedFile is { } revoked)
            _revoked = new([revoked], contents => ParseRevoked(Encoding.UTF8.GetString(contents[0])), log);
    }

    /// <summary>Grows whenever an answer of <see cref="RoleOf"/> or <see cref="IsRevoked"/> may have changed.</summary>
    public long Version => (_users?.Version ?? 0) + (_revoked?.Version ?? 0);

    public IEnumerable<string> Errors => new[] { _users?.Error, _revoked?.Error }.OfType<string>();

    public void Refresh()
    {
        _users?.Refresh();
        _revoked?.Refresh();
    }

    /// <summary>Null when there is no such user.</summary>
    public string? RoleOf(string user)
    {
        if (user == $"admin-{_cluster}")
            return Roles.Root;
        if (user == $"local-{_cluster}")
            return Roles.Local;
        if (user == "remote")
            return _sharedRemote ? Roles.Remote : null;
        return _users?.Value.GetValueOrDefault(user);
    }

    public Grants GrantsOf(string role) => _roles.Find(role) ?? Grants.None;

    public bool IsRevoked(X509Certificate2 certificate) =>
        _revoked is not null && _revoked.Value.Contains(certificate.GetCertHashString(HashAlgorithmName.SHA256));

    /// <summary>The CN; null when there is none or more than one, for then the certificate is nobody's.</summary>
    public static string? UserOf(X509Certificate2 certificate)
    {
        string? found = null;
        foreach (var part in certificate.SubjectName.EnumerateRelativeDistinguishedNames())
        {
            if (part.HasMultipleElements)
                return null;
            if (part.GetSingleElementType().Value != "2.5.4.3")
                continue;
            if (found is not null)
                return null;
            found = part.GetSingleElementValue();
        }
        return found is { Length: > 0 } ? found : null;
    }

    private Dictionary<string, string> Checked(Dictionary<string, string> users)
    {
        foreach (var (name, role) in users)
        {
            if (role == Roles.Root || _roles.Find(role) is null)
                throw new InvalidDataException($"user {name} has role '{role}': roles of other clusters' users are 'remote' and 'local'");
        }
        return users;
    }

    private static HashSet<string> ParseRevoked(string text)
    {
        var revoked = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
        foreach (var line in text.Split('\n'))
        {
            var fingerprint = line.Split('#')[0].Replace(":", "", StringComparison.Ordinal).Trim();
            if (fingerprint.Length == 0)
                continue;
            if (fingerprint.Length != 64 || !fingerprint.All(char.IsAsciiHexDigit))
                throw new InvalidDataException($"'{line.Trim()}' is no SHA-256 fingerprint of a certificate (64 hex digits)");
            revoked.Add(fingerprint);
        }
        return revoked;
    }
}
