namespace Mesh.Datapath;

/// <summary>Something the datapath cannot do, in one line that names the thing and, where there is one, the mend.</summary>
public sealed class DatapathException : Exception
{
    public DatapathException(string message, Exception? inner = null)
        : base(message, inner)
    {
    }
}
