using System.Globalization;

namespace Mesh.Lab.Native;

/// <summary>
/// One process, told from a later one with the same number by its start time. Written to pid files as "PID START",
/// START in clock ticks since boot (field 22 of /proc/PID/stat); an execve keeps both.
/// </summary>
public sealed record ProcessReference(int Pid, ulong StartTime)
{
    /// <summary>The running process of that number; null when there is none or only a zombie.</summary>
    public static ProcessReference? TryOpen(int pid)
    {
        string stat;
        try
        {
            stat = File.ReadAllText($"/proc/{pid}/stat");
        }
        catch (IOException)
        {
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            return null;
        }
        // The command name may hold anything, so count fields from its closing parenthesis.
        var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return fields[0] is "Z" or "X" ? null : new ProcessReference(pid, ulong.Parse(fields[19], CultureInfo.InvariantCulture));
    }

    public static ProcessReference Self => TryOpen(Environment.ProcessId)!;

    /// <summary>The process that a pid file names, if that very process still runs.</summary>
    public static ProcessReference? FromPidFile(string path)
    {
        string text;
        try
        {
            text = File.ReadAllText(path);
        }
        catch (IOException)
        {
            return null;
        }
        var fields = text.Split(' ', StringSplitOptions.TrimEntries);
        if (fields.Length != 2 || !int.TryParse(fields[0], CultureInfo.InvariantCulture, out var pid)
            || !ulong.TryParse(fields[1], CultureInfo.InvariantCulture, out var start))
            return null;
        var reference = new ProcessReference(pid, start);
        return reference.IsRunning ? reference : null;
    }

    public bool IsRunning => TryOpen(Pid) == this;

    public void WritePidFile(string path)
    {
        var fresh = $"{path}.{Pid}.new";
        File.WriteAllText(fresh, string.Create(CultureInfo.InvariantCulture, $"{Pid} {StartTime}\n"));
        File.Move(fresh, path, overwrite: true);
    }

    /// <summary>A descriptor that becomes readable when the process ends; -1 when it already has.</summary>
    internal int OpenDescriptor()
    {
        var fd = Libc.OpenPid(Pid);
        if (fd < 0 || IsRunning)
            return fd;
        Libc.Close(fd);
        return -1;
    }

    /// <summary>SIGKILL to this very process, never to a later one of the same number.</summary>
    public void Kill()
    {
        var fd = OpenDescriptor();
        if (fd < 0)
            return;
        Libc.SignalPid(fd, Libc.SIGKILL);
        Libc.Close(fd);
    }
}
