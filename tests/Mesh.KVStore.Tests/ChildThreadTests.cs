using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>Whatever kills the tests kills what they started.</summary>
public sealed class ChildThreadTests
{
    [Fact]
    public async Task A_child_dies_with_the_tests_and_not_with_the_thread_that_asked_for_it()
    {
        // setpriv prints how it was itself started.
        Assert.Contains("Parent death signal: KILL", ChildThread.Run("setpriv", "--dump"), StringComparison.OrdinalIgnoreCase);
        var asking = new TaskCompletionSource<System.Diagnostics.Process>(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() => asking.SetResult(ChildThread.Start("sleep", "1000")));
        thread.Start();
        using var child = await asking.Task;
        thread.Join();
        Assert.False(child.WaitForExit(TimeSpan.FromMilliseconds(100)));
        child.Kill();
        await child.WaitForExitAsync(TestContext.Current.CancellationToken);
    }
}
