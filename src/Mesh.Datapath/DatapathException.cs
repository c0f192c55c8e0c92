using Mesh.Bpf;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath;

/// <summary>Something the datapath cannot do, in one line that names the thing and, where there is one, the mend.</summary>
public sealed class DatapathException : Exception
{
    public DatapathException(string message, Exception? inner = null)
        : base(message, inner)
    {
        FullMap = (inner as BpfMapFullException)?.Map;
    }

    /// <summary>The map that has no room, when that is the cause.</summary>
    public string? FullMap { get; init; }

    /// <summary>The fault of a row. A full map's own words serve all rows that wait for it, so nothing of the row is in them.</summary>
    internal RowFault Of(string row) => FullMap is null ? new RowFault($"{row}: {Message}") : new RowFault(Message, FullMap);
}
