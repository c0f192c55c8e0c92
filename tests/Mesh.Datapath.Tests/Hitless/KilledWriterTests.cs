using System.Diagnostics;
using Mesh.Bpf;
using Mesh.Datapath.Tests.Kernel;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>
/// An agent killed before any of its stores, one after the other: whatever a program then finds of a service, an address, a node, a
/// policy, a cluster is what was there before or what was to come, never a mixture; and the next start goes on to the end.
/// </summary>
public sealed class KilledWriterTests
{
    private const int Kills = 20;

    public static TheoryData<string> Ways => ["there", "back", "first", "last"];

    [Theory]
    [MemberData(nameof(Ways))]
    public void Killed_before_any_store_each_thing_is_in_its_old_or_in_its_new_form(string way)
    {
        var (from, to) = Of(way);
        var (old, _) = Settled(Intent.None, from);
        var (now, held) = Settled(from, to);
        Assert.NotEqual(old, now);

        var deaths = 0;
        for (var stores = 0; ; stores++)
        {
            using var maps = new PinnedTestMaps();
            using var reader = maps.Read();
            Start(maps, Intent.None, from);
            using (var writers = new Writers(maps.Pins))
            {
                if (!Dies(() => writers.Follow(from, to), stores, out var store))
                    break;
                deaths++;
                var mixtures = Mixtures(writers.View(reader), old, now).ToList();
                Assert.True(mixtures.Count == 0, $"killed before store {stores} ({store}): {string.Join("; ", mixtures)}");
            }
            // The next one knows nothing but what it finds.
            using var next = new Writers(maps.Pins);
            next.Follow(Intent.None, to);
            next.Prune(to);
            Assert.Equal(Sorted(now), Sorted(next.View(reader)));
            Assert.Equal(held, next.Held);
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{way}: {deaths} deaths");
        Assert.True(deaths > 40, $"only {deaths} stores");
    }

    /// <summary>The same without our choosing where: a process that writes without end, killed by the kernel at any instruction.</summary>
    [Fact]
    public void A_process_killed_at_any_instruction_leaves_each_thing_in_one_form_or_the_other()
    {
        var (before, held) = Settled(Intent.None, Intent.Before);
        var (after, _) = Settled(Intent.Before, Intent.After);
        using var maps = new PinnedTestMaps();
        using var reader = maps.Read();
        var random = new Random(20261123);
        var halfway = 0;

        for (var kill = 0; kill < Kills; kill++)
        {
            using (var child = Child.Writers(maps.Pins))
            {
                child.WaitUntilReady();
                SpinFor(TimeSpan.FromMicroseconds(random.Next(0, 60_000)));
                child.Kill();
            }
            using var writers = new Writers(maps.Pins, adopt: false);
            var view = writers.View(reader);
            var mixtures = Mixtures(view, before, after).ToList();
            Assert.True(mixtures.Count == 0, $"kill {kill}: {string.Join("; ", mixtures)}");
            if (!Sorted(view).SequenceEqual(Sorted(before)) && !Sorted(view).SequenceEqual(Sorted(after)))
                halfway++;
        }
        Start(maps, Intent.None, Intent.Before);
        using var last = new Writers(maps.Pins);
        last.Prune(Intent.Before);

        TestContext.Current.TestOutputHelper?.WriteLine($"{Kills} kills, {halfway} of them halfway");
        Assert.Equal(Sorted(before), Sorted(last.View(reader)));
        Assert.Equal(held, last.Held);
        Assert.True(halfway > 0, "never killed at work");

        static void SpinFor(TimeSpan time)
        {
            for (var begun = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(begun) < time;)
                Thread.SpinWait(100);
        }
    }

    /// <summary>Otherwise the tests above could not die there.</summary>
    [Theory]
    [MemberData(nameof(Ways))]
    public void No_map_changes_without_a_place_to_die_before(string way)
    {
        var (from, to) = Of(way);
        using var maps = new PinnedTestMaps();
        Start(maps, Intent.None, from);
        using var writers = new Writers(maps.Pins);
        var last = writers.Snapshot();
        string? named = null;
        var touched = new HashSet<string>();

        WriteFailpoint.Before = Look;
        try
        {
            writers.Follow(from, to);
            Look("");
        }
        finally
        {
            WriteFailpoint.Before = null;
        }

        Assert.True(touched.Count >= 10, string.Join(", ", touched));

        void Look(string next)
        {
            var snapshot = writers.Snapshot();
            var changed = snapshot.Where(map => last[map.Key] != map.Value).Select(map => map.Key).ToList();
            Assert.True(changed.Count == 0 || changed is [var only] && only == named, $"{string.Join(", ", changed)} changed behind {named}");
            touched.UnionWith(changed);
            (last, named) = (snapshot, next);
        }
    }

    /// <summary>What the first test would see of writers that store in another order.</summary>
    [Theory]
    [InlineData("the word of a service before its backends")]
    [InlineData("an address before its node")]
    [InlineData("the word of a pod's policy before its verdicts")]
    [InlineData("a service before its source ranges")]
    public void A_wrong_order_is_seen_as_a_mixture(string order)
    {
        var (from, to) = (Intent.Before, Intent.After);
        var (old, _) = Settled(Intent.None, from);
        var (now, _) = Settled(from, to);
        using var maps = new PinnedTestMaps();
        using var reader = maps.Read();
        Start(maps, Intent.None, from);
        using var writers = new Writers(maps.Pins);
        writers.Follow(from, to);

        // As if these stores had not been reached yet.
        writers.Undo(order);

        Assert.NotEmpty(Mixtures(writers.View(reader), old, now));
    }

    private static (Intent From, Intent To) Of(string way) => way switch
    {
        "there" => (Intent.Before, Intent.After),
        "back" => (Intent.After, Intent.Before),
        "first" => (Intent.None, Intent.Before),
        _ => (Intent.After, Intent.None),
    };

    private static void Start(PinnedTestMaps maps, Intent from, Intent to)
    {
        using var writers = new Writers(maps.Pins);
        writers.Follow(from, to);
        writers.Prune(to);
    }

    /// <summary>How it looks when nobody dies.</summary>
    private static (Dictionary<string, string> View, string Held) Settled(Intent from, Intent to)
    {
        using var maps = new PinnedTestMaps();
        using var reader = maps.Read();
        Start(maps, Intent.None, from);
        using var writers = new Writers(maps.Pins);
        writers.Follow(from, to);
        writers.Prune(to);
        return (writers.View(reader), writers.Held);
    }

    private static IEnumerable<string> Mixtures(Dictionary<string, string> seen, Dictionary<string, string> old, Dictionary<string, string> now)
    {
        foreach (var thing in seen.Keys.Union(old.Keys).Union(now.Keys))
        {
            var form = seen.GetValueOrDefault(thing, "absent");
            // A next hop that is unknown is looked up by the kernel itself.
            if (form == Writers.Unknown || form == old.GetValueOrDefault(thing, "absent") || form == now.GetValueOrDefault(thing, "absent"))
                continue;
            yield return $"{thing} is <{form}>, was <{old.GetValueOrDefault(thing)}>, is to be <{now.GetValueOrDefault(thing)}>";
        }
    }

    private static List<string> Sorted(Dictionary<string, string> view) =>
        [.. view.Select(thing => $"{thing.Key}: {thing.Value}").Order(StringComparer.Ordinal)];

    /// <returns>False when it came to its end.</returns>
    private static bool Dies(Action work, int after, out string store)
    {
        var stores = 0;
        var last = "";
        WriteFailpoint.Before = map =>
        {
            last = map;
            if (stores++ == after)
                throw new KilledException();
        };
        try
        {
            work();
            return false;
        }
        catch (KilledException)
        {
            return true;
        }
        finally
        {
            WriteFailpoint.Before = null;
            store = last;
        }
    }

    private sealed class KilledException : Exception;
}
