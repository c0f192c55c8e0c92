using System.Globalization;
using System.Runtime.CompilerServices;
using Mesh.Benchmarks.Surroundings;
using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Benchmarks;

/// <summary>
/// Nanoseconds of a policy verdict with 1 to 100,000 peers that have rows of their own, by BPF_PROG_TEST_RUN of
/// bpf/tests/policy_bench.bpf.c: a peer chosen at random each time, the choosing taken off. Next to it a trie of identity, protocol
/// and port asked twice, the shape of Cilium's policy map. Figures are medians of rounds in which the three take turns.
/// </summary>
internal static class PolicyVerdicts
{
    private const uint Set = 1000;
    private const uint FirstPeer = 0x20000;
    private const int Runs = 500_000;
    private const int Rounds = 7;
    private static readonly byte[] Packet = new byte[64];

    public static Task RunAsync(Report report, CancellationToken cancellation)
    {
        foreach (var rows in (int[])[1, 1000, 10_000, 100_000])
            foreach (var ranges in (int[])[1, 3, 64])
            {
                cancellation.ThrowIfCancellationRequested();
                Measure(report, rows, ranges);
            }
        return Task.CompletedTask;
    }

    private static void Measure(Report report, int rows, int ranges)
    {
        using var programs = BpfObject.Open(Path.Combine(Command.Root, "out", "bpf", "tests", "policy_bench.bpf.o"));
        programs.Load();
        using var count = programs.Map<uint, uint>("bench_rows");
        count.Set(0, (uint)rows);
        using var verdicts = programs.Map<PolicyRowKey, PolicyRowValue>("policy_rows");
        using var places = programs.Array<PolicyRangeValue>("policy_ranges");
        using var trie = programs.Map<TrieKey, TrieValue>("bench_lpm");
        // Rows of one policy share their ranges, as the datapath writes them.
        for (uint i = 0; i < ranges; i++)
            places[i] = new PolicyRangeValue { Start = i == 0 ? 0 : 6u << 16 | (79 + i), Verdict = i % 2 == 0 && i > 0 ? 0 : PolicyLimits.VerdictAllow };
        var value = ranges == 1 ? new PolicyRowValue { Answer = PolicyLimits.VerdictAllow } : new PolicyRowValue { Ranges = (uint)ranges };
        Fill(verdicts, [.. Peers(rows).Select(peer => new PolicyRowKey(Set, peer))], value);
        var allow = new TrieValue();
        allow[0] = 1;
        Fill(trie, [.. Peers(rows).Select(peer => new TrieKey(64, peer, 0, 6, BigEndianUInt16.FromHost(80)))], allow);

        using var none = programs.Program("bench_none");
        using var verdict = programs.Program("bench_verdict");
        using var lpm = programs.Program("bench_trie");
        var (ours, theirs) = (new List<double>(), new List<double>());
        for (var round = 0; round < Rounds; round++)
        {
            double empty = Run(none, allowed: null);
            ours.Add(Math.Max(0, Run(verdict, allowed: true) - empty));
            theirs.Add(Math.Max(0, Run(lpm, allowed: true) - empty));
        }
        var (mine, peer) = (new Sample(ours).P50, new Sample(theirs).P50);
        report.Add(string.Create(CultureInfo.InvariantCulture, $"policy: a verdict, {rows:N0} rows, {ranges} port range{(ranges == 1 ? "" : "s")} each"),
            string.Create(CultureInfo.InvariantCulture, $"{mine:0} ns"), string.Create(CultureInfo.InvariantCulture, $"{peer:0} ns (trie)"), mine / peer);
    }

    private static uint Run(BpfProgram program, bool? allowed)
    {
        var result = program.TestRun(Packet, Runs);
        return allowed is null || (result.ReturnValue == 1) == allowed
            ? result.NanosecondsPerRun
            : throw new InvalidOperationException($"{program.Name} answered {result.ReturnValue}");
    }

    private static IEnumerable<uint> Peers(int rows) => Enumerable.Range(0, rows).Select(i => FirstPeer + (uint)i);

    private static void Fill<TKey, TValue>(BpfMap<TKey, TValue> map, TKey[] keys, TValue value)
        where TKey : unmanaged
        where TValue : unmanaged
        => map.SetBatch(keys, [.. Enumerable.Repeat(value, keys.Length)], (_, cause) => throw cause);

    /// <summary>struct bench_lpm_key.</summary>
    private readonly record struct TrieKey(uint PrefixLength, uint Identity, byte Direction, byte Protocol, BigEndianUInt16 Port);

    /// <summary>struct bench_lpm_value.</summary>
    [InlineArray(6)]
    private struct TrieValue
    {
        private uint _verdict;
    }
}
