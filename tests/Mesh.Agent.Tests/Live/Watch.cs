using System.Diagnostics;
using System.Globalization;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>The program `mesh` watching a node, and what it has printed.</summary>
public sealed class Watch : IDisposable
{
    private readonly Process _process;
    private readonly List<string> _lines = [];
    private readonly Task _reading;
    private Task<string>? _errors;

    public Watch(IReadOnlyList<string> arguments)
    {
        _process = ChildThread.Start(new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "mesh"), arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        });
        _reading = Task.Run(async () =>
        {
            while (await _process.StandardOutput.ReadLineAsync() is { } line)
                lock (_lines)
                    _lines.Add(line);
        });
    }

    public int ProcessId => _process.Id;

    public IReadOnlyList<string> Lines
    {
        get
        {
            lock (_lines)
                return [.. _lines];
        }
    }

    /// <summary>How long a busy machine may take for anything.</summary>
    public static CancellationToken Deadline() => new CancellationTokenSource(TimeSpan.FromSeconds(40)).Token;

    /// <summary>Does something again and again until a line is as wanted, and returns the line.</summary>
    public async Task<string> UntilAsync(Action again, Predicate<string> wanted, string what)
    {
        var deadline = Deadline();
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(30));
        while (true)
        {
            again();
            if (Lines.FirstOrDefault(line => wanted(line)) is { } found)
                return found;
            Assert.False(deadline.IsCancellationRequested || _process.HasExited, $"no line says {what}:\n{string.Join('\n', Lines.TakeLast(20))}");
            await tick.WaitForNextTickAsync();
        }
    }

    /// <summary>The first line on stderr, while it goes on; what <see cref="EndAsync"/> gives is what comes behind it.</summary>
    public async Task<string?> FirstErrorAsync() => await _process.StandardError.ReadLineAsync(Deadline());

    /// <summary>Ends it as Ctrl-C does.</summary>
    public Task<(int Exit, string Error)> InterruptAsync()
    {
        ChildThread.Run("kill", "-INT", ProcessId.ToString(CultureInfo.InvariantCulture));
        return EndAsync();
    }

    /// <summary>Its end, of itself.</summary>
    public async Task<(int Exit, string Error)> EndAsync()
    {
        _errors ??= _process.StandardError.ReadToEndAsync();
        await _process.WaitForExitAsync(Deadline());
        await _reading;
        return (_process.ExitCode, await _errors);
    }

    public void Kill() => _process.Kill();

    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
