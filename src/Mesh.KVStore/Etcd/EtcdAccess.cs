using Authpb;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>A role of etcd that may only read.</summary>
/// <param name="Name">As etcd lists it.</param>
/// <param name="ReadPrefixes">Prefixes whose keys it may list and watch.</param>
/// <param name="ReadKeys">Single keys it may get.</param>
public sealed record EtcdRole(string Name, IReadOnlyList<string> ReadPrefixes, IReadOnlyList<string> ReadKeys);

/// <summary>A user without password: whoever shows a certificate with this common name.</summary>
public sealed record EtcdUser(string Name, string Role);

/// <summary>
/// Who may do what in an etcd of ours: makes users and roles what they ought to be and switches authentication on. Every step may be
/// repeated; what is right already is not touched, and permissions that a role should not have are taken away.
/// </summary>
public sealed class EtcdAccess : IDisposable
{
    /// <summary>The role, known to every etcd, that may do everything; and the user who must exist before authentication goes on.</summary>
    public const string Root = "root";

    private readonly EtcdClient _client;

    /// <param name="options">Must come with a certificate whose common name is a user with the root role.</param>
    public EtcdAccess(EtcdOptions options, TimeProvider? time = null) =>
        _client = new EtcdClient(options, time ?? TimeProvider.System, new Random());

    /// <exception cref="KVStoreException">etcd refused or did not answer.</exception>
    public async Task EnsureAsync(IReadOnlyList<EtcdRole> roles, IReadOnlyList<EtcdUser> users, CancellationToken cancellation)
    {
        var knownRoles = (await AskAsync("list roles", (auth, o) => auth.RoleListAsync(new AuthRoleListRequest(), o), cancellation)
            .ConfigureAwait(false)).Roles.ToHashSet();
        await EnsureRoleAsync(new EtcdRole(Root, [], []), knownRoles, cancellation).ConfigureAwait(false);
        foreach (var role in roles)
            await EnsureRoleAsync(role, knownRoles, cancellation).ConfigureAwait(false);
        var knownUsers = (await AskAsync("list users", (auth, o) => auth.UserListAsync(new AuthUserListRequest(), o), cancellation)
            .ConfigureAwait(false)).Users.ToHashSet();
        await EnsureUserAsync(new EtcdUser(Root, Root), knownUsers, cancellation).ConfigureAwait(false);
        foreach (var user in users)
            await EnsureUserAsync(user, knownUsers, cancellation).ConfigureAwait(false);
        await AskAsync("enable authentication", (auth, o) => auth.AuthEnableAsync(new AuthEnableRequest(), o), cancellation)
            .ConfigureAwait(false);
    }

    public void Dispose() => _client.Dispose();

    private async Task EnsureRoleAsync(EtcdRole role, HashSet<string> known, CancellationToken cancellation)
    {
        if (!known.Contains(role.Name))
        {
            await AskAsync($"add role {role.Name}", (auth, o) => auth.RoleAddAsync(new AuthRoleAddRequest { Name = role.Name }, o),
                cancellation).ConfigureAwait(false);
        }
        if (role.Name == Root)
            return;
        var present = (await AskAsync($"get role {role.Name}",
            (auth, o) => auth.RoleGetAsync(new AuthRoleGetRequest { Role = role.Name }, o), cancellation).ConfigureAwait(false)).Perm;
        var wanted = role.ReadPrefixes.Select(Prefix).Concat(role.ReadKeys.Select(Key)).ToList();
        foreach (var permission in wanted.Where(permission => !present.Contains(permission)))
        {
            var grant = new AuthRoleGrantPermissionRequest { Name = role.Name, Perm = permission };
            await AskAsync($"grant {role.Name} {permission.Key.ToStringUtf8()}", (auth, o) => auth.RoleGrantPermissionAsync(grant, o),
                cancellation).ConfigureAwait(false);
        }
        foreach (var permission in present.Where(permission =>
            !wanted.Exists(w => w.Key == permission.Key && w.RangeEnd == permission.RangeEnd)))
        {
            var revoke = new AuthRoleRevokePermissionRequest { Role = role.Name, Key = permission.Key, RangeEnd = permission.RangeEnd };
            await AskAsync($"revoke {role.Name} {permission.Key.ToStringUtf8()}", (auth, o) => auth.RoleRevokePermissionAsync(revoke, o),
                cancellation).ConfigureAwait(false);
        }
    }

    private async Task EnsureUserAsync(EtcdUser user, HashSet<string> known, CancellationToken cancellation)
    {
        if (known.Add(user.Name))
        {
            var add = new AuthUserAddRequest { Name = user.Name, Options = new UserAddOptions { NoPassword = true } };
            await AskAsync($"add user {user.Name}", (auth, o) => auth.UserAddAsync(add, o), cancellation).ConfigureAwait(false);
        }
        var roles = (await AskAsync($"get user {user.Name}",
            (auth, o) => auth.UserGetAsync(new AuthUserGetRequest { Name = user.Name }, o), cancellation).ConfigureAwait(false)).Roles;
        if (!roles.Contains(user.Role))
        {
            var grant = new AuthUserGrantRoleRequest { User = user.Name, Role = user.Role };
            await AskAsync($"grant user {user.Name}", (auth, o) => auth.UserGrantRoleAsync(grant, o), cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>An answer that was lost may have been a success: "already exists" at the repetition is one.</summary>
    private async Task<T> AskAsync<T>(
        string what, Func<Auth.AuthClient, CallOptions, AsyncUnaryCall<T>> call, CancellationToken cancellation)
        where T : new()
    {
        try
        {
            return await _client.CallAsync(what, _client.Options.CallDeadline,
                (endpoint, options) => call(endpoint.Auth, options), cancellation).ConfigureAwait(false);
        }
        catch (KVStoreException e) when (e.InnerException is RpcException { Status.Detail: var detail }
            && detail.Contains("already exist", StringComparison.Ordinal))
        {
            return new T();
        }
    }

    private static Permission Key(string key) =>
        new() { PermType = Permission.Types.Type.Read, Key = ByteString.CopyFromUtf8(key) };

    private static Permission Prefix(string prefix)
    {
        var range = PrefixRange.Of(prefix);
        return new Permission { PermType = Permission.Types.Type.Read, Key = range.Key, RangeEnd = range.End };
    }
}
