using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using Mesh.Agent.Tests.Truth;
using Mesh.Cli;
using Xunit;

[assembly: AssemblyFixture(typeof(FaultTimes))]

namespace Mesh.Agent.Tests.Truth;

/// <summary>What `mesh status` says while a fault lasts, how long it took to say so, and all those times in a table at the end.</summary>
public sealed class FaultTimes : IDisposable
{
    /// <summary>On a machine with time for it; the table shows what it took.</summary>
    public static readonly TimeSpan Promise = TimeSpan.FromSeconds(10);

    /// <summary>How long the class is looked at once it is there.</summary>
    private static readonly TimeSpan Look = TimeSpan.FromSeconds(0.5);

    private readonly ConcurrentQueue<(string What, string Fault, TimeSpan After)> _times = new();

    /// <summary>Asks until the class is named, and a little longer: it stays named, and nothing says healthy.</summary>
    /// <param name="clock">Runs since the fault was made.</param>
    /// <param name="neverHealthy">The fault was there before the agent: it must not say healthy before it has a class either.</param>
    /// <param name="ofThePeer">False for a fault of the node itself, beside which a peer may be well.</param>
    public async Task MeasureAsync(string what, string fault, string socket, Stopwatch clock, bool neverHealthy = false, bool ofThePeer = true)
    {
        TimeSpan? named = null;
        while (named is not { } since || clock.Elapsed - since < Look)
        {
            var text = await StatusAsync(socket);
            var isNamed = text.Contains(ofThePeer ? $"NOT HEALTHY, {fault}," : $"{fault} ", StringComparison.Ordinal);
            if (isNamed)
                named ??= clock.Elapsed;
            if (named is not null || neverHealthy)
                Assert.False(SaysHealthy(text, ofThePeer), $"{fault} was there, and still:\n{text}");
            Assert.True(named is null || isNamed, $"{fault} was named and then not:\n{text}");
            Assert.True(named is not null || clock.Elapsed < 3 * Promise, $"not {fault} within three times {Promise.TotalSeconds} s:\n{text}");
            await Task.Delay(50);
        }
        _times.Enqueue((what, fault, named.Value));
    }

    public static bool SaysHealthy(string text, bool ofThePeer = true) =>
        (ofThePeer && ((string[])[$"{FaultyPeer.Name}: healthy", "1/1 remote clusters ready", $"{FaultyPeer.Name}: ready"])
            .Any(words => text.Contains(words, StringComparison.Ordinal)))
        || text.Contains("exit codes 0", StringComparison.Ordinal) || text.Contains("brief: OK", StringComparison.Ordinal);

    /// <summary>What `mesh status` prints, with all it knows and in brief, and its exit codes.</summary>
    public static async Task<string> StatusAsync(string socket)
    {
        var (output, error) = (new StringWriter(), new StringWriter());
        var code = await MeshCommand.RunAsync(["status", "--verbose", "--socket", socket], output, error);
        await output.WriteAsync("brief: ");
        var brief = await MeshCommand.RunAsync(["status", "--brief", "--socket", socket], output, error);
        return $"{output}{error}exit codes {code} {brief}";
    }

    public void Dispose()
    {
        if (_times.IsEmpty)
            return;
        var table = new StringBuilder(string.Create(CultureInfo.InvariantCulture,
            $"{_times.Count} of 15 faults, and the seconds until `mesh status` named each:\n"));
        foreach (var (what, fault, after) in _times.OrderBy(time => time.After))
            table.Append(CultureInfo.InvariantCulture, $"  {after.TotalSeconds,5:0.00} s  {fault,-22}{what}\n");
        Console.Write(table);
    }
}
