using System.Globalization;
using System.Runtime.InteropServices;

namespace Mesh.Benchmarks;

/// <summary>Collects what was measured and prints it as one table, with the facts of the machine it was measured on. A row has our
/// figure, the peer's from the same run where there is one, their ratio, and the aim.</summary>
internal sealed class Report
{
    private readonly string _machine = MachineFacts();
    private readonly List<string[]> _rows = [["benchmark", "mesh", "peer (same run)", "ratio", "aim"]];

    public bool MissedAnAim { get; private set; }

    /// <param name="ratio">Null when there is no peer.</param>
    /// <param name="aim">What we aim for, in words; "" for a figure that is only recorded.</param>
    /// <param name="met">Null when there is no aim.</param>
    public void Add(string what, string ours, string peer = "-", double? ratio = null, string aim = "", bool? met = null)
    {
        MissedAnAim |= met == false;
        var mark = met switch { true => $"{aim}: met", false => $"{aim}: MISSED", null => aim };
        _rows.Add([what, ours, peer, ratio is { } value ? value.ToString("0.00", CultureInfo.InvariantCulture) : "-", mark]);
        Console.Error.WriteLine($"bench: {what}: {ours}{(peer == "-" ? "" : $" (peer {peer})")}");
    }

    public void Print(TextWriter output)
    {
        output.WriteLine();
        output.WriteLine(_machine);
        output.WriteLine();
        var widths = Enumerable.Range(0, _rows[0].Length).Select(column => _rows.Max(row => row[column].Length)).ToArray();
        foreach (var (row, index) in _rows.Select((row, index) => (row, index)))
        {
            output.WriteLine(string.Join(" | ", row.Select((cell, column) => cell.PadRight(widths[column]))).TrimEnd());
            if (index == 0)
                output.WriteLine(string.Join("-|-", widths.Select(width => new string('-', width))));
        }
    }

    private static string MachineFacts()
    {
        var model = File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal));
        var kernel = File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
        var total = File.ReadLines("/proc/meminfo").First().Split(' ', StringSplitOptions.RemoveEmptyEntries)[1];
        var memoryKiB = long.Parse(total, CultureInfo.InvariantCulture);
        var load = File.ReadAllText("/proc/loadavg").Split(' ')[0];
        return $"{Environment.ProcessorCount} × {model?.Split(':')[1].Trim() ?? "unknown CPU"}, {memoryKiB / 1024 / 1024} GiB, kernel {kernel}, "
            + $"{RuntimeInformation.FrameworkDescription}, load at start {load}";
    }
}

/// <summary>A sample of measured values, in microseconds unless said otherwise.</summary>
internal sealed class Sample(IEnumerable<double> values)
{
    private readonly double[] _sorted = [.. values.Order()];

    public int Count => _sorted.Length;

    public double P50 => At(0.50);

    public double Mean => _sorted.Average();

    public double P99 => At(0.99);

    /// <summary>Nearest-rank percentile.</summary>
    public double At(double share) => _sorted.Length == 0
        ? double.NaN
        : _sorted[Math.Clamp((int)Math.Ceiling(share * _sorted.Length) - 1, 0, _sorted.Length - 1)];

    public string Milliseconds() => string.Create(CultureInfo.InvariantCulture, $"p50 {P50 / 1000:0.00} ms, p99 {P99 / 1000:0.00} ms");
}
