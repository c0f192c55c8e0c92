using Mesh.StateDB.Reconciler;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.StateDB.Tests;

/// <summary>A target with room for so much: a row needs as many places as its text has letters.</summary>
internal sealed class BoundedTarget(int room) : IOperations<int, Row>
{
    public Dictionary<int, string> Held { get; } = [];

    public int Room { get; set; } = room;

    public int Attempts { get; private set; }

    public void Update(IReadOnlyList<KeyValuePair<int, Row>> rows, Action<int, RowFault> fail)
    {
        for (var i = 0; i < rows.Count; i++)
        {
            Attempts++;
            var (key, row) = rows[i];
            if (Held.Where(pair => pair.Key != key).Sum(pair => pair.Value.Length) + row.Text.Length > Room)
                fail(i, new RowFault("shelf is full", "shelf"));
            else
                Held[key] = row.Text;
        }
    }

    public void Delete(IReadOnlyList<int> keys, Action<int, RowFault> fail)
    {
        foreach (var key in keys)
            Held.Remove(key);
    }

    public int Prune(IReadOnlyDictionary<int, Row> desired) => 0;
}

public class FullTargetTests
{
    private readonly Table<int, Row> _table = new("rows");
    private readonly BoundedTarget _target = new(3);
    private readonly FakeTimeProvider _time = new();
    private readonly Reconciler<int, Row> _reconciler;

    public FullTargetTests() => _reconciler = new Reconciler<int, Row>(_table, _target, time: _time, random: new Random(1));

    private void Put(int key, string text) => _table.Write(transaction => transaction.Upsert(key, new Row(text)));

    private int AttemptsOfOneTurn(ChangeFeed<int, Row> feed)
    {
        var before = _target.Attempts;
        _reconciler.RunOnce(feed);
        return _target.Attempts - before;
    }

    [Fact]
    public void A_full_target_is_asked_once_a_second_whatever_the_number_that_wait()
    {
        using var feed = _table.Subscribe();
        for (var key = 0; key < 1000; key++)
            Put(key, "x");
        Assert.Equal(1000, AttemptsOfOneTurn(feed));
        Assert.Equal([new FullTarget("shelf", "shelf is full", 997, _time.GetUtcNow())], _reconciler.Full);
        Assert.Equal(997, _reconciler.Failing);
        for (var second = 0; second < 5; second++)
        {
            Assert.Equal(0, AttemptsOfOneTurn(feed));
            _time.Advance(TimeSpan.FromSeconds(0.5));
            Assert.Equal(0, AttemptsOfOneTurn(feed));
            _time.Advance(TimeSpan.FromSeconds(0.5));
            Assert.Equal(1, AttemptsOfOneTurn(feed));
        }
        Assert.Equal(997, Assert.Single(_reconciler.Full).Waiting);
        Assert.Equal(997, _table.Snapshot().Count(pair => pair.Value.Status is { State: RowState.Error, Error: "shelf is full" }));
    }

    [Fact]
    public void All_that_fit_go_in_within_a_second_after_room_appears()
    {
        using var feed = _table.Subscribe();
        for (var key = 0; key < 1000; key++)
            Put(key, "x");
        _reconciler.RunOnce(feed);
        _target.Room = 600;
        _time.Advance(TimeSpan.FromSeconds(1));
        _reconciler.RunOnce(feed);
        Assert.Equal(600, _target.Held.Count);
        Assert.Equal(400, Assert.Single(_reconciler.Full).Waiting);
        _target.Room = 1000;
        _time.Advance(TimeSpan.FromSeconds(1));
        _reconciler.RunOnce(feed);
        Assert.Equal(1000, _target.Held.Count);
        Assert.Empty(_reconciler.Full);
        Assert.Equal(0, _reconciler.Failing);
        Assert.All(_table.Snapshot(), pair => Assert.Equal(RowState.Done, pair.Value.Status.State));
    }

    [Fact]
    public void A_row_that_needs_much_does_not_hold_up_one_that_needs_little()
    {
        using var feed = _table.Subscribe();
        Put(1, "xxx");
        _reconciler.RunOnce(feed);
        Put(2, "xxx");
        _reconciler.RunOnce(feed);
        Put(3, "x");
        _reconciler.RunOnce(feed);
        Put(1, "xx");
        _reconciler.RunOnce(feed);
        for (var second = 0; second < 2; second++)
        {
            _time.Advance(TimeSpan.FromSeconds(1));
            _reconciler.RunOnce(feed);
        }
        Assert.Equal("x", _target.Held[3]);
        Assert.Equal(1, Assert.Single(_reconciler.Full).Waiting);
    }

    [Fact]
    public void A_changed_row_is_tried_at_once_and_a_deleted_one_waits_no_more()
    {
        using var feed = _table.Subscribe();
        Put(1, "xx");
        _reconciler.RunOnce(feed);
        Put(2, "xx");
        Put(3, "xx");
        _reconciler.RunOnce(feed);
        Assert.Equal(2, Assert.Single(_reconciler.Full).Waiting);
        Put(2, "x");
        Assert.Equal(1, AttemptsOfOneTurn(feed));
        Assert.Equal("x", _target.Held[2]);
        _table.Write(transaction => transaction.Delete(3));
        _reconciler.RunOnce(feed);
        Assert.Empty(_reconciler.Full);
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(0, AttemptsOfOneTurn(feed));
    }

    [Fact]
    public async Task The_loop_wakes_by_itself_to_ask()
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        var options = new ReconcilerOptions { RoomInterval = TimeSpan.FromMilliseconds(20), IdleInterval = TimeSpan.FromMinutes(5) };
        var reconciler = new Reconciler<int, Row>(_table, _target, options);
        for (var key = 0; key < 5; key++)
            Put(key, "x");
        var loop = reconciler.RunAsync(stop.Token);
        var deadline = DateTime.UtcNow.AddSeconds(20);
        while (reconciler.Full is not [{ Waiting: 2 }] && DateTime.UtcNow < deadline)
            await Task.Delay(5, stop.Token);
        _target.Room = 5;
        while (reconciler.Full.Count > 0 && DateTime.UtcNow < deadline)
            await Task.Delay(5, stop.Token);
        Assert.Empty(reconciler.Full);
        await stop.CancelAsync();
        await loop;
        Assert.Equal(5, _target.Held.Count);
    }
}
