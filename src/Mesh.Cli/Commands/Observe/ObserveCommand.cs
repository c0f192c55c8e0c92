using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Datapath;
using Mesh.Datapath.Observing;

namespace Mesh.Cli.Commands.Observe;

/// <summary>
/// `mesh observe`: the flows of a node as they pass, with who speaks to whom, what service was asked for and what became of it; and
/// `mesh monitor --drops`: only what was dropped, and why. Read from the kernel's ring; the agent is asked for names only.
/// A name that nobody has is said at once: with --follow on stderr, for its pod may come, else it is an error.
/// </summary>
internal static class ObserveCommand
{
    private static readonly TimeSpan Look = TimeSpan.FromMilliseconds(50);

    public static Command Build(TextWriter output, TextWriter error)
    {
        var place = new WatchPlace();
        var from = new Option<string?>("--from") { Description = "Only flows from this address, range or pod (namespace/name)" };
        var to = new Option<string?>("--to") { Description = "Only flows to it; a virtual address counts" };
        var port = new Option<string?>("--port") { Description = "Only flows with this port on either side" };
        var protocol = new Option<string?>("--protocol") { Description = "tcp, udp, sctp, icmp or icmpv6" };
        var verdict = new Option<string?>("--verdict") { Description = "forwarded, dropped or audit" };
        var command = new Command("observe", "Flows of a node as they pass; works with the agent dead.") { from, to, port, protocol, verdict };
        place.AddTo(command);
        command.SetAction((parsed, cancel) => place.RunAsync(parsed, output, error, FlowFilter.Parse(parsed.GetValue(from), parsed.GetValue(to),
            parsed.GetValue(port), parsed.GetValue(protocol), parsed.GetValue(verdict)), cancel));
        return command;
    }

    public static Command BuildMonitor(TextWriter output, TextWriter error)
    {
        var place = new WatchPlace();
        var drops = new Option<bool>("--drops") { Description = "Only what is dropped" };
        var command = new Command("monitor", "Packets of a node and what becomes of them.") { drops };
        place.AddTo(command);
        command.SetAction((parsed, cancel) => place.RunAsync(parsed, output, error,
            new FlowFilter { Verdict = parsed.GetValue(drops) ? Verdict.Dropped : null }, cancel));
        return command;
    }

    /// <param name="most">Lines after which it ends, the newest; null = none of them ends it.</param>
    internal static async Task<int> WatchAsync(string bpfRoot, AgentClient? agent, FlowFilter filter, bool follow, int? most, TimeSpan patience,
        bool json, TextWriter output, TextWriter error, CancellationToken cancellation)
    {
        using var watch = FlowWatch.Begin(bpfRoot);
        using var maps = PinnedMaps.Open(bpfRoot);
        var names = new FlowNames(maps, agent, TimeProvider.System);
        var last = new Queue<FlowLine>();
        try
        {
            foreach (var (flag, name) in filter.Names)
                if (await names.WhyUnknownAsync(flag, name, cancellation) is { } why)
                    await error.WriteLineAsync(follow ? $"mesh: {why}; watching on, it may come" : throw new CliException(why));
            var clock = Stopwatch.StartNew();
            while (follow || clock.Elapsed < patience)
            {
                var events = watch.Read();
                await names.LearnAsync(events, cancellation);
                foreach (var one in events)
                {
                    var line = new FlowLine(one, names.Of(one.Source, one.Identity), names.Of(one.Destination, 0), watch.ServiceOf(one));
                    if (!filter.Wants(line))
                        continue;
                    if (follow)
                        Print(line);
                    else
                        last.Enqueue(line);
                    if (last.Count > most)
                        last.Dequeue();
                }
                await Task.Delay(Look, cancellation);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // Ctrl-C is how a person ends it, also while the agent is asked for names.
        }
        foreach (var line in last)
            Print(line);
        if (watch.Lost > 0)
            output.Write(string.Create(CultureInfo.InvariantCulture, $"# {watch.Lost} events were lost: the ring was full\n"));
        return 0;

        void Print(FlowLine line) => output.Write((json ? line.Json(DateTimeOffset.UtcNow) : line.Text(DateTimeOffset.UtcNow)) + "\n");
    }
}

/// <summary>Which node is watched, for how long, and how it is told.</summary>
internal sealed class WatchPlace
{
    private readonly ContextOptions _options = new();
    private readonly Option<string?> _root = new("--bpf-root") { Description = "The agent's --bpf-root, instead of a context" };
    private readonly Option<bool> _follow = new("--follow", "-f") { Description = "Until interrupted, each flow as it passes" };
    private readonly Option<int> _last = new("--last") { Description = "The newest N flows of the time watched", DefaultValueFactory = _ => 20 };
    private readonly Option<int> _for = new("--for") { Description = "Seconds that are watched without --follow", DefaultValueFactory = _ => 3 };

    public WatchPlace()
    {
        // Line by line as they come: there is no document that a template could look into.
        _options.Output.Validators.Clear();
        _options.Output.Description = "text or json";
        _options.Output.AcceptOnlyFromAmong("text", "json");
    }

    public void AddTo(Command command)
    {
        _options.AddTo(command);
        command.Add(_root);
        command.Add(_follow);
        command.Add(_last);
        command.Add(_for);
    }

    public async Task<int> RunAsync(ParseResult parsed, TextWriter output, TextWriter error, FlowFilter filter, CancellationToken cancellation)
    {
        if (parsed.GetValue(_last) < 1 || parsed.GetValue(_for) < 1)
            throw new CliException("--last and --for must be at least 1");
        var node = parsed.GetValue(_root) is null ? _options.Node(parsed) : null;
        var root = parsed.GetValue(_root) ?? node!.FindBpfRoot();
        using var agent = node?.Connect(TimeSpan.FromSeconds(2))
            ?? (parsed.GetValue(_options.Socket) is { } socket ? new AgentClient(socket, "", TimeSpan.FromSeconds(2)) : null);
        return await ObserveCommand.WatchAsync(root, agent, filter, parsed.GetValue(_follow), parsed.GetValue(_last),
            TimeSpan.FromSeconds(parsed.GetValue(_for)), _options.IsStructured(parsed), output, error, cancellation);
    }
}
