using Mesh.Datapath.Tests.Hitless;

namespace Mesh.Datapath.Tests;

/// <summary>Runs the tests; or is one of their children, which exist to be killed, or to live in another cgroup.</summary>
public static class Program
{
    public static Task<int> Main(string[] args) => args switch
    {
        [Child.Flag, .. var child] => Task.FromResult(Child.Run(child)),
        _ when args.Contains("--server") || args.Contains("--internal-msbuild-node") =>
            Xunit.MicrosoftTestingPlatform.TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions),
        _ => Xunit.Runner.InProc.SystemConsole.ConsoleRunner.Run(args),
    };
}
