using Xunit;

namespace Mesh.StateDB.Tests;

public sealed record Row(string Text);

public class TableTests
{
    private readonly Table<int, Row> _table = new("rows");

    private void Put(int key, string text) => _table.Write(transaction => transaction.Upsert(key, new Row(text)));

    [Fact]
    public void A_transaction_that_throws_leaves_no_trace()
    {
        Put(1, "one");
        Assert.Throws<InvalidOperationException>(() => _table.Write(transaction =>
        {
            transaction.Upsert(1, new Row("two"));
            throw new InvalidOperationException();
        }));
        Assert.True(_table.TryGet(1, out var row));
        Assert.Equal("one", row.Text);
        Assert.Equal(1, _table.Revision);
    }

    [Fact]
    public void An_equal_row_is_no_change()
    {
        Put(1, "one");
        using var feed = _table.Subscribe();
        Assert.Single(feed.Take());
        Put(1, "one");
        Assert.Empty(feed.Take());
        Assert.Equal(1, _table.Revision);
        Put(1, "two");
        Assert.Single(feed.Take());
    }

    [Fact]
    public void A_slow_reader_gets_the_newest_row_once()
    {
        using var feed = _table.Subscribe();
        for (var i = 0; i < 100; i++)
            Put(7, $"version {i}");
        var change = Assert.Single(feed.Take());
        Assert.Equal("version 99", change.Row!.Text);
    }

    [Fact]
    public void A_new_feed_begins_with_every_present_row()
    {
        Put(1, "one");
        Put(2, "two");
        using var feed = _table.Subscribe();
        Assert.Equal([1, 2], feed.Take().Select(change => change.Key).Order());
    }

    [Fact]
    public void A_deleted_row_arrives_as_null()
    {
        Put(1, "one");
        using var feed = _table.Subscribe();
        feed.Take();
        _table.Write(transaction => transaction.Delete(1));
        Assert.Null(Assert.Single(feed.Take()).Row);
        Assert.Equal(0, _table.Count);
    }

    [Fact]
    public void A_transaction_reads_its_own_writes()
    {
        Put(1, "one");
        _table.Write(transaction =>
        {
            transaction.Delete(1);
            Assert.False(transaction.TryGet(1, out _));
            transaction.Upsert(1, new Row("again"));
            Assert.True(transaction.TryGet(1, out var row));
            Assert.Equal("again", row.Text);
        });
    }

    [Fact]
    public void A_table_is_initialized_only_after_the_last_announced_source()
    {
        _table.AddInitializer("tokyo");
        _table.AddInitializer("osaka");
        _table.SealInitializers();
        _table.InitializerDone("tokyo");
        Assert.False(_table.Initialized.IsCompleted);
        Assert.Equal(["osaka"], _table.PendingInitializers);
        _table.InitializerDone("osaka");
        Assert.True(_table.Initialized.IsCompleted);
    }

    [Fact]
    public void Status_of_an_older_row_says_nothing_about_the_present_one()
    {
        Put(1, "one");
        var revision = _table.Revision;
        Put(1, "two");
        Assert.False(_table.SetStatus(1, revision, RowStatus.Done));
        Assert.Equal(RowState.Pending, _table.Snapshot().Single().Value.Status.State);
        Assert.True(_table.SetStatus(1, _table.Revision, RowStatus.Done));
        Assert.Equal(RowState.Done, _table.Snapshot().Single().Value.Status.State);
    }

    [Fact]
    public async Task Waiting_ends_when_a_row_changes()
    {
        using var feed = _table.Subscribe();
        Assert.True(await feed.WaitAsync(TimeSpan.Zero, TestContext.Current.CancellationToken));
        var waiting = feed.WaitAsync(TimeSpan.FromMinutes(1), TestContext.Current.CancellationToken);
        Assert.False(waiting.IsCompleted);
        Put(1, "one");
        Assert.True(await waiting);
    }
}
