namespace Mesh.Lab;

/// <summary>Something the person at the keyboard can mend: one line that says what is wrong and what to do.</summary>
public sealed class LabException(string message) : Exception(message);
