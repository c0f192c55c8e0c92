using System.Runtime.CompilerServices;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>Waiting for a condition, 20 s at most.</summary>
internal static class Wait
{
    public static async Task UntilAsync(Func<bool> condition, [CallerArgumentExpression(nameof(condition))] string what = "")
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        deadline.CancelAfter(TimeSpan.FromSeconds(20));
        using var looks = new PeriodicTimer(TimeSpan.FromMilliseconds(5));
        while (!condition())
            if (deadline.IsCancellationRequested || !await looks.WaitForNextTickAsync(CancellationToken.None))
                Assert.Fail($"not within 20 s: {what}");
    }
}
