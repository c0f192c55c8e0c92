using System.Runtime.InteropServices;
using System.Text;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>A refused BPF operation: what was tried, and the errno by number and by name.</summary>
public class BpfException : Exception
{
    public BpfException(int errno, string what)
        : base($"{what}: {Describe(errno)}") => Errno = errno;

    protected BpfException(int errno, string message, Exception? inner)
        : base(message, inner) => Errno = errno;

    /// <summary>Positive errno of the kernel, or a libbpf error from 4000 on.</summary>
    public int Errno { get; }

    /// <summary>"No such file or directory (2)", or libbpf's own text for its own numbers.</summary>
    public static unsafe string Describe(int errno)
    {
        if (errno < 4000)
            return $"{Marshal.GetPInvokeErrorMessage(errno)} ({errno})";
        var buffer = stackalloc byte[128];
        return Libbpf.StrError(errno, buffer, 128) == 0 ? $"{Marshal.PtrToStringUTF8((nint)buffer)} ({errno})" : $"libbpf error {errno}";
    }

    internal static int ThrowIfNegative(int result, string what) => result >= 0 ? result : throw new BpfException(-result, what);
}

/// <summary>A map has no room for another entry.</summary>
public sealed class BpfMapFullException : BpfException
{
    public BpfMapFullException(string map, uint maxEntries)
        : base(Syscalls.E2BIG, $"map {map} is full: it holds {maxEntries} entries", inner: null)
    {
        Map = map;
        MaxEntries = maxEntries;
    }

    public string Map { get; }

    public uint MaxEntries { get; }
}

/// <summary>The kernel's verifier refused a program. The message is one line; the whole log is in <see cref="Log"/>.</summary>
public sealed class VerifierException : BpfException
{
    private VerifierException(int errno, string message, string log)
        : base(errno, message, inner: null) => Log = log;

    /// <summary>Everything that libbpf and the verifier said, for -v output or a file.</summary>
    public string Log { get; }

    /// <summary>A verifier exception when the log holds a verifier's log, otherwise a plain one with libbpf's own words.</summary>
    internal static BpfException From(int errno, string objectName, string log)
    {
        const string begin = "-- BEGIN PROG LOAD LOG --";
        var lines = log.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        var start = Array.FindIndex(lines, line => line.EndsWith(begin, StringComparison.Ordinal));
        if (start < 0)
        {
            // The cause comes first, then what it made impossible.
            var causes = lines.Where(line => !line.Contains("failed to load object", StringComparison.Ordinal)).Select(Trim).ToArray();
            return new BpfException(errno, $"load {objectName}{(causes.Length == 0 ? "" : ": ")}{string.Join("; ", causes)}");
        }
        var end = Array.FindIndex(lines, start, line => line.EndsWith("-- END PROG LOAD LOG --", StringComparison.Ordinal));
        var cause = lines[(start + 1)..(end < 0 ? lines.Length : end)]
            .LastOrDefault(line => !line.StartsWith("processed ", StringComparison.Ordinal)
                && !line.StartsWith("verification time", StringComparison.Ordinal)
                && !line.StartsWith("stack depth", StringComparison.Ordinal)) ?? "no reason given";
        var program = lines[start].Split('\'') is [_, var name, ..] ? name : "?";
        var message = new StringBuilder(objectName).Append(": program ").Append(program).Append(" was refused by the verifier: ")
            .Append(cause).Append(" [").Append(Describe(errno)).Append(']');
        return new VerifierException(errno, message.ToString(), log);
    }

    private static string Trim(string line) => line.StartsWith("libbpf: ", StringComparison.Ordinal) ? line[8..] : line;
}
