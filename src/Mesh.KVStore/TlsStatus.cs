namespace Mesh.KVStore;

/// <summary>The certificates between us and an etcd server.</summary>
/// <param name="ClientName">Common name of the certificate that the next handshake shows: the etcd user. Null without one.</param>
/// <param name="ServerName">Subject of what the server showed last; null before a handshake.</param>
/// <param name="AuthorityNotAfter">End of the authority by which the server was verified last.</param>
/// <param name="Problem">Files that cannot be used as they are now; names file and cause. The last good ones stay in use.</param>
public sealed record TlsStatus(
    string? ClientName, DateTimeOffset? ClientNotAfter, string? ServerName, DateTimeOffset? ServerNotAfter,
    DateTimeOffset? AuthorityNotAfter, string? Problem);
