using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>Waiting for a condition, never for a time.</summary>
internal static class Deadline
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    public static async Task Until(Func<Task<bool>> condition, string what, Func<string>? state = null)
    {
        using var patience = new CancellationTokenSource(Patience);
        while (!await condition())
        {
            if (patience.IsCancellationRequested)
                Assert.Fail($"waited for: {what}\n{state?.Invoke()}");
            await Task.Delay(10, CancellationToken.None);
        }
    }

    public static Task Until(Func<bool> condition, string what, Func<string>? state = null) =>
        Until(() => Task.FromResult(condition()), what, state);
}
