namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>A number that only grows, added to from any thread.</summary>
internal sealed class Counter
{
    private long _value;

    public long Value => Interlocked.Read(ref _value);

    public void Increment() => Interlocked.Increment(ref _value);

    public void Add(long count) => Interlocked.Add(ref _value, count);
}

/// <summary>What the door has done since it started; read by status and metrics.</summary>
internal sealed class DoorCounters
{
    public Counter Connections { get; } = new();

    public Counter ConnectionsRefused { get; } = new();

    public Counter Ranges { get; } = new();

    public Counter Refusals { get; } = new();

    public Counter Malformed { get; } = new();

    public Counter WatchesCreated { get; } = new();

    public Counter EventsSent { get; } = new();

    public Counter EventsConflated { get; } = new();

    public Counter WatchesCompacted { get; } = new();

    public Counter StreamsCut { get; } = new();

    public Counter ResetsPunished { get; } = new();

    public Counter Delayed { get; } = new();
}
