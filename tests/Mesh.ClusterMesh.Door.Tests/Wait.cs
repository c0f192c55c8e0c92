using System.Diagnostics;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Waits for a condition with a deadline; what it waited for is in the failure.</summary>
internal static class Wait
{
    public static async Task UntilAsync(Func<bool> condition, string what, double seconds = 10)
    {
        var clock = Stopwatch.StartNew();
        while (!condition())
        {
            if (clock.Elapsed > TimeSpan.FromSeconds(seconds))
                Assert.Fail($"not within {seconds} s: {what}");
            await Task.Delay(5);
        }
    }
}
