using System.CommandLine;
using System.Globalization;
using Mesh.Cli.Contexts;
using Mesh.Datapath;

namespace Mesh.Cli.Commands.Drill;

/// <summary>
/// `mesh drill lose CLUSTER --for 60s [--max-error 1%]`: rehearses the loss of a cluster. It is taken out of every choice until a time that
/// stands in the kernel's maps, so that the drill ends by itself whatever becomes of this process. What the others will have to bear
/// is told before, and what they had to bear after; more errors than allowed end it at once.
/// </summary>
internal static class DrillCommand
{
    private static readonly TimeSpan Look = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan LongestDrill = TimeSpan.FromHours(1);

    public static Command Build(TextWriter output) => new("drill", "Rehearses the loss of a cluster, in the datapath of some nodes.")
    {
        BuildLose(output), BuildStatus(output), BuildStop(output),
    };

    private static Command BuildLose(TextWriter output)
    {
        var places = new DrillPlaces();
        var cluster = ClusterArgument();
        var length = new Option<string>("--for") { Description = "How long, such as 60s or 5m; at most 1h", DefaultValueFactory = _ => "60s" };
        var maxError = new Option<string>("--max-error")
        {
            Description = "Failed new flows that end the drill, in percent of all",
            DefaultValueFactory = _ => "1%",
        };
        var command = new Command("lose", "Takes a cluster out of every choice for a while.") { cluster, length, maxError };
        places.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            var time = ParseLength(parsed.GetValue(length)!);
            var limit = ParsePercent(parsed.GetValue(maxError)!);
            var (id, name, roots) = places.Find(parsed, parsed.GetValue(cluster)!);
            using var nodes = new OpenNodes(roots);
            return await LoseAsync(output, nodes, id, name, time, limit, places.Names(parsed), cancel);
        });
        return command;
    }

    private static Command BuildStatus(TextWriter output)
    {
        var places = new DrillPlaces();
        var command = new Command("status", "Which clusters are rehearsed as lost, and for how long still.");
        places.AddTo(command);
        command.SetAction(parsed =>
        {
            var any = false;
            foreach (var (node, root) in places.All(parsed))
            {
                using var maps = PinnedMaps.Open(root);
                foreach (var drill in maps.Clusters().Where(one => one.DrillLeft is not null))
                {
                    any = true;
                    output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                        $"{node}: {Name(places.Names(parsed), drill.ClusterId)} is rehearsed as lost for {drill.DrillLeft!.Value.TotalSeconds:0.0} s more"));
                }
            }
            if (!any)
                output.WriteLine("no drill");
            return 0;
        });
        return command;
    }

    private static Command BuildStop(TextWriter output)
    {
        var places = new DrillPlaces();
        var command = new Command("stop", "Ends every drill at once.");
        places.AddTo(command);
        command.SetAction(parsed =>
        {
            var stopped = 0;
            foreach (var (_, root) in places.All(parsed))
            {
                List<uint> drilled;
                using (var maps = PinnedMaps.Open(root))
                    drilled = [.. maps.Clusters().Where(one => one.DrillLeft is not null).Select(one => one.ClusterId)];
                foreach (var cluster in drilled)
                    Mesh.Datapath.Liveness.Drill.End(root, cluster);
                stopped += drilled.Count > 0 ? 1 : 0;
            }
            output.WriteLine(stopped == 0 ? "no drill" : $"drills ended on {stopped} nodes");
            return 0;
        });
        return command;
    }

    private static async Task<int> LoseAsync(TextWriter output, OpenNodes nodes, uint id, string name, TimeSpan length, double limit,
        IReadOnlyDictionary<uint, string> names, CancellationToken cancel)
    {
        var forecast = DrillForecast.Of(nodes.Maps.Select(maps => (maps.Frontends(),
            (IReadOnlySet<uint>)maps.Clusters().Where(one => one.Up && one.Alive && one.DrillLeft is null).Select(one => one.ClusterId).ToHashSet())), id);
        output.WriteLine($"{name} (cluster ID {id}) on {nodes.Maps.Count} nodes, {forecast.Services} frontends");
        output.WriteLine($"predicted share of new flows, if every service has as many: {Shares(forecast.Before, names)}");
        output.WriteLine($"                                          without {name}: {Shares(forecast.After, names)}");
        foreach (var (cluster, share) in forecast.After.OrderBy(pair => pair.Key))
            if (forecast.Before.GetValueOrDefault(cluster) is > 0 and var before && share > before)
                output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"   {Name(names, cluster)} will bear {share / before:0.00} times its load"));
        if (forecast.Stranded.Count > 0)
            output.WriteLine($"   {forecast.Stranded.Count} frontends have no other cluster and will go on using {name}: "
                + string.Join(", ", forecast.Stranded.Take(5)));

        var start = DrillCount.Read(nodes.Maps);
        var clock = System.Diagnostics.Stopwatch.StartNew();
        foreach (var root in nodes.Roots)
            Mesh.Datapath.Liveness.Drill.Begin(root, id, length, limit);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name} is out for {length.TotalSeconds:0} s; `mesh drill stop` ends it"));
        await output.FlushAsync(cancel);

        var aborted = false;
        var ended = false;
        var interrupted = false;
        while (clock.Elapsed < length && !aborted && !interrupted && !ended)
        {
            var left = length - clock.Elapsed;
            await Task.Delay(left < Look ? left : Look, cancel).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            interrupted = cancel.IsCancellationRequested;
            var sofar = DrillCount.Read(nodes.Maps).Since(start);
            aborted = sofar.Flows >= Mesh.Datapath.Liveness.DrillGuard.FlowsToJudge && sofar.ErrorRate > limit;
            // An agent has ended it on its node, by its own count, or somebody has by hand: then it ends everywhere.
            ended = length - clock.Elapsed > Look && nodes.Maps.Any(maps => maps.Clusters().All(one => one.ClusterId != id || one.DrillLeft is null));
        }
        var measured = DrillCount.Read(nodes.Maps).Since(start);
        foreach (var root in nodes.Roots)
            Mesh.Datapath.Liveness.Drill.End(root, id);
        var flows = measured.Choices.ToDictionary(pair => pair.Key, pair => measured.Flows == 0 ? 0 : (double)pair.Value / measured.Flows);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"measured in {clock.Elapsed.TotalSeconds:0.0} s: {measured.Flows} new flows: {Shares(flows, names)}; {measured.Failed} failed "
            + $"({measured.ErrorRate * 100:0.##} %), {measured.Panics} chosen in panic"));
        if (aborted)
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"ABORTED: more than {limit * 100:0.##} % of the new flows failed; {name} is in again"));
        else if (ended)
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"ENDED before its time, by an agent (more than {limit * 100:0.##} % of its node's new flows failed) or by "
                + $"`mesh drill stop`; {name} is in again"));
        else
            output.WriteLine(interrupted ? $"interrupted: {name} is in again" : $"over: {name} is in again");
        return aborted || ended ? 2 : interrupted ? 130 : 0;
    }

    internal static Argument<string> ClusterArgument() => new("CLUSTER") { Description = "Name, or cluster ID" };

    private static string Shares(IReadOnlyDictionary<uint, double> shares, IReadOnlyDictionary<uint, string> names) => shares.Count == 0
        ? "none"
        : string.Join(", ", shares.OrderBy(pair => pair.Key).Select(pair =>
            string.Create(CultureInfo.InvariantCulture, $"{Name(names, pair.Key)} {pair.Value * 100:0.0} %")));

    private static string Name(IReadOnlyDictionary<uint, string> names, uint cluster) => names.GetValueOrDefault(cluster) ?? $"cluster {cluster}";

    private static TimeSpan ParseLength(string text)
    {
        var unit = text.Length > 1 ? text[^1] : ' ';
        var seconds = unit switch { 's' => 1, 'm' => 60, 'h' => 3600, _ => 0 };
        if (seconds == 0 || !double.TryParse(text[..^1], NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number)
            || number * seconds is not (> 0 and <= 3600))
            throw new CliException($"--for {text}: must be a time such as 60s or 5m, at most {LongestDrill.TotalHours:0}h");
        return TimeSpan.FromSeconds(number * seconds);
    }

    private static double ParsePercent(string text) =>
        double.TryParse(text.TrimEnd('%'), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number) && number is >= 0 and <= 100
            ? number / 100
            : throw new CliException($"--max-error {text}: must be a percentage such as 1% or 0.5%");

    /// <summary>The maps of the drill's nodes, open for as long as it takes.</summary>
    private sealed class OpenNodes : IDisposable
    {
        public OpenNodes(IReadOnlyList<string> roots)
        {
            Roots = roots;
            foreach (var root in roots)
                Maps.Add(PinnedMaps.Open(root));
        }

        public IReadOnlyList<string> Roots { get; }

        public List<PinnedMaps> Maps { get; } = [];

        public void Dispose() => Maps.ForEach(maps => maps.Dispose());
    }
}

/// <summary>Where a drill takes place: the nodes of a context; without one, every node of the only lab but the lost cluster's own.</summary>
internal sealed class DrillPlaces
{
    private readonly ContextOptions _context = new();
    private readonly Option<string?> _root = new("--bpf-root") { Description = "The --bpf-root of one agent, instead of a context" };

    public void AddTo(Command command)
    {
        command.Add(_context.Context);
        command.Add(_root);
    }

    /// <summary>Node and directory of its pins.</summary>
    public IReadOnlyList<(string Node, string Root)> All(ParseResult parsed)
    {
        if (parsed.GetValue(_root) is { } root)
            return [("this node", root)];
        var context = Context.Find(parsed.GetValue(_context.Context));
        var given = parsed.GetValue(_context.Context) ?? Environment.GetEnvironmentVariable(Context.Variable);
        if (context.Lab is { } lab && string.IsNullOrEmpty(given))
            return [.. lab.Nodes.Select(node => (node.Name, node.BpfRoot))];
        return [.. context.Nodes.Select(node => (node.Name, node.FindBpfRoot()))];
    }

    /// <summary>The cluster, and the pins of the nodes that are to lose it.</summary>
    public (uint Id, string Name, IReadOnlyList<string> Roots) Find(ParseResult parsed, string cluster)
    {
        var names = Names(parsed);
        var known = names.Where(pair => pair.Value == cluster || pair.Key.ToString(CultureInfo.InvariantCulture) == cluster).ToList();
        var id = known is [var only] ? only.Key
            : uint.TryParse(cluster, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number
            : throw new CliException($"there is no cluster '{cluster}'"
                + (names.Count == 0 ? ": give its ID" : $", only {string.Join(", ", names.Values.Order(StringComparer.Ordinal))}"));
        var own = parsed.GetValue(_root) is null ? Context.Find(parsed.GetValue(_context.Context)) : null;
        var lost = own?.Lab?.Clusters.FirstOrDefault(one => one.Id == id)?.Nodes.Select(node => node.BpfRoot).ToHashSet() ?? [];
        IReadOnlyList<string> roots = [.. All(parsed).Select(one => one.Root).Where(root => !lost.Contains(root))];
        if (roots.Count == 0)
            throw new CliException($"{cluster} cannot be lost to itself: choose another --context");
        return (id, names.GetValueOrDefault(id) ?? $"cluster {id}", roots);
    }

    public IReadOnlyDictionary<uint, string> Names(ParseResult parsed)
    {
        if (parsed.GetValue(_root) is not null)
            return new Dictionary<uint, string>();
        return Context.Find(parsed.GetValue(_context.Context)).Lab?.Clusters.ToDictionary(cluster => cluster.Id, cluster => cluster.Name)
            ?? [];
    }
}
