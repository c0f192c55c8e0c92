namespace Mesh.Pki;

/// <summary>
/// The three files by which a reader of an etcd proves itself and knows the server, in Cilium's naming: PREFIX-ca.crt, PREFIX.crt,
/// PREFIX.key. They are replaced together (<see cref="FileSet"/>): neither a reader nor a kill meets half of them.
/// </summary>
public static class ClientFiles
{
    public static string CaFile(string directory, string prefix) => Path.Combine(directory, prefix + "-ca.crt");

    public static string CertFile(string directory, string prefix) => Path.Combine(directory, prefix + ".crt");

    public static string KeyFile(string directory, string prefix) => Path.Combine(directory, prefix + ".key");

    /// <returns>True when something changed; the same content is not written again.</returns>
    /// <exception cref="PkiException">The directory cannot be written.</exception>
    public static bool Write(string directory, string prefix, string caPem, string certificatePem, string keyPem)
    {
        var set = new FileSet(directory, prefix);
        using var hold = set.Lock();
        var content = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            [prefix + "-ca.crt"] = caPem,
            [prefix + ".crt"] = certificatePem,
            [prefix + ".key"] = keyPem,
        };
        var present = set.Read(content.Keys);
        if (present.Count == content.Count && content.All(file => present[file.Key] == file.Value))
            return false;
        set.Write(content, content.Keys, IsSecret);
        return true;
    }

    /// <summary>Removes what <see cref="Write"/> made; nothing happens when there is nothing.</summary>
    public static void Remove(string directory, string prefix)
    {
        if (!Directory.Exists(directory))
            return;
        var set = new FileSet(directory, prefix);
        using var hold = set.Lock();
        set.Remove([prefix + "-ca.crt", prefix + ".crt", prefix + ".key"]);
    }

    private static bool IsSecret(string file) => file.EndsWith(".key", StringComparison.Ordinal);
}
