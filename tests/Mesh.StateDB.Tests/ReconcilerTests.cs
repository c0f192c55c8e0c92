using CsCheck;
using Mesh.StateDB.Reconciler;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.StateDB.Tests;

/// <summary>A target in memory that refuses what it is told to refuse.</summary>
internal sealed class Target : IOperations<int, Row>
{
    public Dictionary<int, string> Held { get; } = [];

    public HashSet<int> Refused { get; } = [];

    public int Prunes { get; private set; }

    public void Update(IReadOnlyList<KeyValuePair<int, Row>> rows, Action<int, RowFault> fail)
    {
        for (var i = 0; i < rows.Count; i++)
        {
            if (Refused.Contains(rows[i].Key))
                fail(i, $"row {rows[i].Key} is refused");
            else
                Held[rows[i].Key] = rows[i].Value.Text;
        }
    }

    public void Delete(IReadOnlyList<int> keys, Action<int, RowFault> fail)
    {
        for (var i = 0; i < keys.Count; i++)
        {
            if (Refused.Contains(keys[i]))
                fail(i, $"row {keys[i]} is refused");
            else
                Held.Remove(keys[i]);
        }
    }

    public int Prune(IReadOnlyDictionary<int, Row> desired)
    {
        Prunes++;
        var leftovers = Held.Keys.Where(key => !desired.ContainsKey(key)).ToList();
        leftovers.ForEach(key => Held.Remove(key));
        return leftovers.Count;
    }
}

public class ReconcilerTests
{
    private readonly Table<int, Row> _table = new("rows");
    private readonly Target _target = new();
    private readonly FakeTimeProvider _time = new();
    private readonly Reconciler<int, Row> _reconciler;

    public ReconcilerTests() => _reconciler = new Reconciler<int, Row>(_table, _target, time: _time, random: new Random(1));

    private void Put(int key, string text) => _table.Write(transaction => transaction.Upsert(key, new Row(text)));

    private RowStatus StatusOf(int key) => _table.Snapshot().Single(pair => pair.Key == key).Value.Status;

    [Fact]
    public void A_refused_row_is_an_error_on_that_row_alone()
    {
        using var feed = _table.Subscribe();
        _target.Refused.Add(2);
        Put(1, "one");
        Put(2, "two");
        _reconciler.RunOnce(feed);
        Assert.Equal(RowState.Done, StatusOf(1).State);
        Assert.Equal(RowState.Error, StatusOf(2).State);
        Assert.Equal("row 2 is refused", StatusOf(2).Error);
        Assert.Equal(1, _reconciler.Failing);
    }

    [Fact]
    public void A_refused_row_is_tried_again_after_the_backoff_and_not_before()
    {
        using var feed = _table.Subscribe();
        _target.Refused.Add(2);
        Put(2, "two");
        _reconciler.RunOnce(feed);
        _target.Refused.Clear();
        _reconciler.RunOnce(feed);
        Assert.Empty(_target.Held);
        _time.Advance(TimeSpan.FromMilliseconds(100));
        _reconciler.RunOnce(feed);
        Assert.Equal("two", _target.Held[2]);
        Assert.Equal(RowState.Done, StatusOf(2).State);
        Assert.Equal(0, _reconciler.Failing);
    }

    [Fact]
    public void A_newer_row_replaces_the_one_that_waits_for_its_retry()
    {
        using var feed = _table.Subscribe();
        _target.Refused.Add(2);
        Put(2, "old");
        _reconciler.RunOnce(feed);
        _target.Refused.Clear();
        Put(2, "new");
        _time.Advance(TimeSpan.FromMinutes(1));
        _reconciler.RunOnce(feed);
        Assert.Equal("new", _target.Held[2]);
    }

    [Fact]
    public void A_deletion_that_fails_is_tried_again()
    {
        using var feed = _table.Subscribe();
        Put(2, "two");
        _reconciler.RunOnce(feed);
        _target.Refused.Add(2);
        _table.Write(transaction => transaction.Delete(2));
        _reconciler.RunOnce(feed);
        Assert.Single(_target.Held);
        _target.Refused.Clear();
        _time.Advance(TimeSpan.FromMinutes(1));
        _reconciler.RunOnce(feed);
        Assert.Empty(_target.Held);
    }

    [Fact]
    public void Leftovers_of_an_earlier_life_stay_until_every_source_has_synced()
    {
        using var feed = _table.Subscribe();
        _target.Held[9] = "of an earlier life";
        _table.AddInitializer("tokyo");
        _table.SealInitializers();
        _reconciler.RunOnce(feed);
        Assert.Single(_target.Held);
        _table.InitializerDone("tokyo");
        _reconciler.RunOnce(feed);
        Assert.Empty(_target.Held);
        Assert.Equal(1, _reconciler.Pruned);
    }

    [Fact]
    public async Task The_loop_follows_the_table_until_it_is_stopped()
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        var reconciler = new Reconciler<int, Row>(_table, _target);
        var loop = reconciler.RunAsync(stop.Token);
        Put(1, "one");
        var deadline = DateTime.UtcNow.AddSeconds(20);
        while (_table.Snapshot()[0].Value.Status.State != RowState.Done && DateTime.UtcNow < deadline)
            await Task.Yield();
        Assert.Equal("one", _target.Held[1]);
        await stop.CancelAsync();
        await loop;
    }

    [Fact]
    public void Whatever_happens_the_target_ends_up_as_the_table() =>
        Gen.Select(Gen.Int[0, 5], Gen.Int[0, 3], Gen.Bool).Array[1, 60].Sample(steps =>
        {
            var table = new Table<int, Row>("rows");
            var target = new Target();
            var time = new FakeTimeProvider();
            var reconciler = new Reconciler<int, Row>(table, target, time: time, random: new Random(1));
            using var feed = table.Subscribe();
            foreach (var (key, value, refuse) in steps)
            {
                target.Refused.Clear();
                if (refuse)
                    target.Refused.Add(key);
                table.Write(transaction =>
                {
                    if (value == 0)
                        transaction.Delete(key);
                    else
                        transaction.Upsert(key, new Row($"{value}"));
                });
                reconciler.RunOnce(feed);
                time.Advance(TimeSpan.FromMilliseconds(40));
            }
            target.Refused.Clear();
            time.Advance(TimeSpan.FromMinutes(10));
            reconciler.RunOnce(feed);
            var wanted = table.Snapshot().OrderBy(pair => pair.Key).Select(pair => $"{pair.Key}={pair.Value.Row.Text}");
            Assert.Equal(wanted, target.Held.OrderBy(pair => pair.Key).Select(pair => $"{pair.Key}={pair.Value}"));
            Assert.All(table.Snapshot(), pair => Assert.Equal(RowState.Done, pair.Value.Status.State));
        });
}
