using System.Diagnostics;
using System.Text;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>The real kubectl with a kubeconfig and caches of its own; one per test.</summary>
internal sealed class Kubectl : IDisposable
{
    private readonly string _program;
    private readonly DirectoryInfo _home = Directory.CreateTempSubdirectory("mesh-kubectl-");

    public Kubectl(string program, KubeApiServer server, KubeUser? user = null)
    {
        _program = program;
        server.WriteKubeconfig(Kubeconfig, "here", user);
    }

    public string Kubeconfig => Path.Combine(_home.FullName, "config");

    /// <summary>
    /// Debian's kubectl (package kubernetes-client: 1.20), which must be there, and the one on the PATH when it is another.
    /// </summary>
    public static TheoryData<string> Programs
    {
        get
        {
            var debian = File.Exists("/usr/bin/kubectl.debian") ? "/usr/bin/kubectl.debian" : "/usr/bin/kubectl";
            var programs = new TheoryData<string> { debian };
            if (debian != "/usr/bin/kubectl" && File.Exists("/usr/bin/kubectl"))
                programs.Add("/usr/bin/kubectl");
            return programs;
        }
    }

    public Process Start(params string[] arguments)
    {
        var start = new ProcessStartInfo(_program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            Environment = { ["KUBECONFIG"] = Kubeconfig, ["HOME"] = _home.FullName, ["KUBECACHEDIR"] = _home.FullName },
        };
        return Process.Start(start) ?? throw new InvalidOperationException($"cannot start {_program}");
    }

    public sealed record Outcome(int Code, string Output, string Error)
    {
        public override string ToString() => $"exit {Code}\n{Output}\n{Error}";
    }

    public async Task<Outcome> TryAsync(string? input, params string[] arguments)
    {
        using var process = Start(arguments);
        try
        {
            using var deadline = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
            deadline.CancelAfter(TimeSpan.FromSeconds(30));
            var output = process.StandardOutput.ReadToEndAsync(deadline.Token);
            var error = process.StandardError.ReadToEndAsync(deadline.Token);
            if (input is not null)
                await process.StandardInput.WriteAsync(input.AsMemory(), deadline.Token);
            process.StandardInput.Close();
            await process.WaitForExitAsync(deadline.Token);
            return new(process.ExitCode, await output, await error);
        }
        finally
        {
            if (!process.HasExited)
                process.Kill();
        }
    }

    /// <summary>Runs to success with the text as input and gives what it printed, without the last line's end.</summary>
    public async Task<string> FeedAsync(string? input, params string[] arguments)
    {
        var outcome = await TryAsync(input, arguments);
        Assert.True(outcome.Code == 0, $"kubectl {string.Join(' ', arguments)}: {outcome}");
        return outcome.Output.TrimEnd('\n');
    }

    public Task<string> RunAsync(params string[] arguments) => FeedAsync(null, arguments);

    public void Dispose() => _home.Delete(true);
}

/// <summary>Reading a process line by line until one says what is waited for.</summary>
internal static class Lines
{
    public static async Task<string> UntilAsync(StreamReader reader, Func<string, bool> wanted)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        deadline.CancelAfter(TimeSpan.FromSeconds(20));
        var seen = new StringBuilder();
        while (await reader.ReadLineAsync(deadline.Token) is { } line)
        {
            seen.AppendLine(line);
            if (wanted(line))
                return line;
        }
        throw new InvalidOperationException($"the output ended after:\n{seen}");
    }
}
