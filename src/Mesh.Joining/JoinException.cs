namespace Mesh.Joining;

/// <summary>Something that the person at the keyboard can mend: one line that says what is wrong and what to do.</summary>
/// <param name="code">A short word for programs, such as token-expired; the same on both sides of a join.</param>
public sealed class JoinException(string code, string message, Exception? inner = null) : Exception(message, inner)
{
    public string Code { get; } = code;

    internal static JoinException Malformed(string message) => new("malformed", message);
}
