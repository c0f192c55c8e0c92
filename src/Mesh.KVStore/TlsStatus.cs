namespace Mesh.KVStore;

/// <summary>The certificates between us and an etcd server.</summary>
/// <param name="ClientName">Common name of the certificate that the next handshake shows: the etcd user. Null without one.</param>
/// <param name="ServerName">Subject of what the server showed last; null before a handshake.</param>
/// <param name="AuthorityNotAfter">End of the authority by which the server was verified last.</param>
/// <param name="Problem">Files that cannot be used as they are now; names file and cause. The last good ones stay in use.</param>
public sealed record TlsStatus(
    string? ClientName, DateTimeOffset? ClientNotAfter, string? ServerName, DateTimeOffset? ServerNotAfter,
    DateTimeOffset? AuthorityNotAfter, string? Problem)
{
    /// <summary>From this many days before the end on it is worth a warning.</summary>
    public const int WarningDays = 30;

    /// <summary>What ends soon or has ended, with the mend, in one line; null when nothing does. Changes once a day.</summary>
    public string? Expiry(DateTimeOffset now)
    {
        var said = new[]
        {
            Say($"our client certificate {ClientName}", ClientNotAfter, now, "have its cluster issue a new one: join it again"),
            Say($"the server's certificate {ServerName}", ServerNotAfter, now, "its cluster must issue a new one: `mesh ca issue server` there"),
            Say("the authority of the server's certificate", AuthorityNotAfter, now, "its cluster must replace it: `mesh ca rotate` there"),
        }.OfType<string>().ToList();
        return said.Count == 0 ? null : string.Join("; ", said);
    }

    private static string? Say(string what, DateTimeOffset? end, DateTimeOffset now, string mend)
    {
        if (end is not { } time || (time - now).TotalDays >= WarningDays)
            return null;
        var days = (int)Math.Floor((time - now).TotalDays);
        return time <= now ? $"error: {what} expired on {time:u}: {mend}"
            : days == 0 ? $"warning: {what} expires within a day, on {time:u}: {mend}"
            : $"warning: {what} expires in {days} {(days == 1 ? "day" : "days")}, on {time:u}: {mend}";
    }
}
