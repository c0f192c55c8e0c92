using Xunit;

namespace Mesh.Pki.Tests;

/// <summary>Files that change together, whoever is killed when and whoever reads meanwhile.</summary>
public sealed class FileSetTests : IDisposable
{
    private static readonly string[] Known = ["a", "a.key", "b", "c"];
    private readonly string _scratch = Directory.CreateTempSubdirectory("mesh-set-").FullName;

    public void Dispose() => Directory.Delete(_scratch, recursive: true);

    private static Dictionary<string, string> Content(string tag, params string[] files) => files.ToDictionary(file => file, file => $"{file} {tag}");

    private static bool IsSecret(string file) => file.EndsWith(".key", StringComparison.Ordinal);

    private static void Write(FileSet set, Dictionary<string, string> content)
    {
        using var hold = set.Lock();
        set.Write(content, Known, IsSecret);
    }

    private static void Finish(FileSet set)
    {
        using var hold = set.Lock();
        set.Finish(Known);
    }

    private static string Text(IReadOnlyDictionary<string, string> content) =>
        string.Join(", ", content.OrderBy(file => file.Key, StringComparer.Ordinal).Select(file => file.Value));

    /// <summary>As any reader sees them: by name, one after the other.</summary>
    private static string Seen(string directory)
    {
        var found = new Dictionary<string, string>();
        foreach (var file in Known)
        {
            try
            {
                found[file] = File.ReadAllText(Path.Combine(directory, file));
            }
            catch (FileNotFoundException)
            {
                // Also a link that leads nowhere.
            }
        }
        return Text(found);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Killed_before_any_step_it_is_the_old_or_the_new_and_a_rerun_makes_it_the_new(bool byHand)
    {
        var (old, next) = (Content("old", "a", "a.key", "b"), Content("new", "a", "a.key", "c"));
        var seen = new HashSet<string>();
        for (var kill = 0; ; kill++)
        {
            var directory = Directory.CreateDirectory(Path.Combine(_scratch, $"{byHand}{kill}")).FullName;
            if (byHand)
                Array.ForEach([.. old], file => File.WriteAllText(Path.Combine(directory, file.Key), file.Value));
            else
                Write(new FileSet(directory, "set"), old);
            var steps = 0;
            var set = new FileSet(directory, "set") { Step = _ => Killed.When(steps++ == kill) };
            var survived = true;
            try
            {
                Write(set, next);
            }
            catch (Killed)
            {
                survived = false;
            }
            Assert.Contains(Seen(directory), new[] { Text(old), Text(next) });
            seen.Add(Seen(directory));
            // Who finds that the change is made already does not make it again, and removes what is left all the same.
            if (Seen(directory) == Text(next))
                Finish(new FileSet(directory, "set"));
            else
                Write(new FileSet(directory, "set"), next);
            Assert.Equal(Text(next), Seen(directory));
            // Nothing is left of the killed one: one content, the lock, the link to the content and one for each file.
            Assert.Equal(3 + next.Count, Directory.EnumerateFileSystemEntries(directory).Count());
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Path.Combine(directory, "a.key")));
            if (!survived)
                continue;
            Assert.InRange(kill, 10, 100);
            break;
        }
        Assert.Equal(2, seen.Count);
    }

    [Fact]
    public async Task A_reader_never_meets_a_mixture()
    {
        var set = new FileSet(_scratch, "set");
        Write(set, Content("0", "a", "a.key", "b"));
        var stop = false;
        var reads = 0;
        var reading = Task.Run(() =>
        {
            var reader = new FileSet(_scratch, "set");
            while (!Volatile.Read(ref stop))
            {
                var found = reader.Read(Known);
                Assert.Equal(3, found.Count);
                Assert.Single(found.Values.Select(text => text[(text.IndexOf(' ', StringComparison.Ordinal) + 1)..]).Distinct());
                reads++;
            }
        }, TestContext.Current.CancellationToken);
        for (var round = 1; round <= 60; round++)
            Write(set, Content($"{round}", "a", "a.key", "b"));
        Volatile.Write(ref stop, true);
        await reading;
        Assert.True(reads > 0);
    }

    [Fact]
    public void Sets_of_one_directory_leave_each_other_alone()
    {
        var (one, other) = (new FileSet(_scratch, "tokyo"), new FileSet(_scratch, "tokyo.etcd-client"));
        one.Write(Content("1", "a"), ["a"], IsSecret);
        other.Write(Content("2", "b"), ["b"], IsSecret);
        one.Write(Content("3", "a"), ["a"], IsSecret);
        Assert.Equal("a 3, b 2", Seen(_scratch));
    }

    [Fact]
    public async Task A_second_writer_waits_for_the_first()
    {
        var set = new FileSet(_scratch, "set");
        var hold = set.Lock();
        var second = Task.Run(() => Write(new FileSet(_scratch, "set"), Content("2", "a")), TestContext.Current.CancellationToken);
        set.Write(Content("1", "a"), Known, IsSecret);
        Assert.False(second.IsCompleted);
        hold.Dispose();
        await second.WaitAsync(TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken);
        Assert.Equal("a 2", Seen(_scratch));
    }

    private sealed class Killed : Exception
    {
        public static void When(bool now)
        {
            if (now)
                throw new Killed();
        }
    }
}
